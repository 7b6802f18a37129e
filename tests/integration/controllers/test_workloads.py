"""Deployments and ReplicaSets through a real gRPC apiserver (in memory), with nodes that only pretend."""

from __future__ import annotations

from machinery.api import kinds
from tests.support.controllers import ControllerLab, deployment

CONTROLLERS = ("deployment", "replicaset")


async def complete(lab: ControllerLab, name: str, replicas: int, image: str = "nginx:1") -> None:
    def done() -> bool:
        obj = lab.get(kinds.DEPLOYMENT, name)
        assert obj is not None
        status = obj.get("status", {})
        return (
            status.get("updatedReplicas", 0) == replicas
            and status.get("availableReplicas", 0) == replicas
            and status.get("replicas", 0) == replicas
            and status.get("observedGeneration") == obj["metadata"]["generation"]
            and all(pod["spec"]["containers"][0]["image"] == image for pod in lab.ready_pods())
        )

    await lab.until(done, f"{name} complete: {lab.get(kinds.DEPLOYMENT, name)}")


async def test_a_deployment_gets_its_pods_and_says_so() -> None:
    async with ControllerLab(*CONTROLLERS) as lab:
        await lab.create(deployment("web", 3))
        await complete(lab, "web", 3)
        await lab.quiet()
        obj = lab.get(kinds.DEPLOYMENT, "web")
        conditions = {entry["type"]: entry for entry in obj["status"]["conditions"]}
        assert conditions["Available"]["reason"] == "MinimumReplicasAvailable"
        assert conditions["Progressing"]["reason"] == "NewReplicaSetAvailable"
        assert obj["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
        (replica_set,) = lab.list(kinds.REPLICA_SET)
        hashed = replica_set["metadata"]["labels"]["pod-template-hash"]
        assert replica_set["metadata"]["name"] == f"web-{hashed}"
        assert replica_set["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"] == "4"
        assert all(pod["metadata"]["labels"]["pod-template-hash"] == hashed for pod in lab.pods())
        await lab.until(lambda: lab.events("ScalingReplicaSet"))
        assert lab.events("ScalingReplicaSet")[0]["message"] == f"Scaled up replica set web-{hashed} from 0 to 3"
        assert len(lab.events("SuccessfulCreate")) == 3


async def test_an_update_rolls_and_an_undo_rolls_back_to_the_old_replica_set() -> None:
    async with ControllerLab(*CONTROLLERS) as lab:
        await lab.create(deployment("web", 4))
        await complete(lab, "web", 4)
        first = {rs["metadata"]["name"] for rs in lab.list(kinds.REPLICA_SET)}
        for image in ("nginx:2", "nginx:1"):
            containers = deployment(image=image)["spec"]["template"]["spec"]["containers"]
            await lab.patch(kinds.DEPLOYMENT, "web", {"spec": {"template": {"spec": {"containers": containers}}}})
            await complete(lab, "web", 4, image)
        await lab.quiet()
        revisions = {
            rs["metadata"]["name"]: rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
            for rs in lab.list(kinds.REPLICA_SET)
        }
        assert len(revisions) == 2
        assert revisions[first.pop()] == "3"
        assert lab.get(kinds.DEPLOYMENT, "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        assert all(pod["spec"]["containers"][0]["image"] == "nginx:1" for pod in lab.pods())


async def test_a_killed_pod_is_replaced_and_scaling_follows() -> None:
    async with ControllerLab(*CONTROLLERS) as lab:
        await lab.create(deployment("web", 3))
        await complete(lab, "web", 3)
        victim = lab.pods()[0]["metadata"]
        await lab.delete(kinds.POD, victim["name"], grace=0)
        await lab.until(lambda: len(lab.ready_pods()) == 3)
        assert victim["uid"] not in {pod["metadata"]["uid"] for pod in lab.pods()}
        for size in (10, 1, 0, 2):
            await lab.patch(kinds.DEPLOYMENT, "web", {"spec": {"replicas": size}})
            await complete(lab, "web", size)


async def test_recreate_starts_nothing_before_everything_old_has_ended() -> None:
    async with ControllerLab(*CONTROLLERS) as lab:
        await lab.create(deployment("web", 3, strategy={"type": "Recreate"}))
        await complete(lab, "web", 3)
        seen = []

        def watch(method: str, request: object) -> None:
            images = {pod["spec"]["containers"][0]["image"] for pod in lab.list(kinds.POD)}
            seen.append(images)

        lab.faults.append(watch)
        containers = deployment(image="nginx:2")["spec"]["template"]["spec"]["containers"]
        await lab.patch(kinds.DEPLOYMENT, "web", {"spec": {"template": {"spec": {"containers": containers}}}})
        await complete(lab, "web", 3, "nginx:2")
        assert all(len(images) <= 1 for images in seen)
