"""Claims and volumes: bound once, provisioned where the pod is, kept while used."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Emit
from services.controller_manager.controllers.persistent_volume import claim_plan, local_path, protection, volume_plan
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": body}


def volume(name: str, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    body = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": "/x"}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": body}


def storage_class(name: str = "standard", mode: str = "WaitForFirstConsumer", **rest: Any) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": local_path.NAME, "volumeBindingMode": mode, "reclaimPolicy": "Delete", **rest,
    }  # fmt: skip


def step(world: World) -> None:
    classes = {each.metadata.name: each for each in world.views(kinds.STORAGE_CLASS)}
    for each in world.views(kinds.PERSISTENT_VOLUME_CLAIM):
        plan = claim_plan.plan(each, world.views(kinds.PERSISTENT_VOLUME), classes)
        world.apply(plan.actions)
    claims = {each.metadata.key: each for each in world.views(kinds.PERSISTENT_VOLUME_CLAIM)}
    for each in world.views(kinds.PERSISTENT_VOLUME):
        reference = each.spec.claimRef
        owner = claims.get(f"{reference.namespace}/{reference.name}") if reference else None
        world.apply(volume_plan.plan(each, owner).actions)
    assert not world.errors, world.errors


def phases(world: World) -> dict[str, str]:
    kinds_now = (kinds.PERSISTENT_VOLUME_CLAIM, kinds.PERSISTENT_VOLUME)
    return {each.metadata.name: each.status.get("phase", "") for kind in kinds_now for each in world.views(kind)}


def test_a_claim_takes_the_smallest_volume_that_fits_and_both_say_so() -> None:
    world = World()
    for name, size in (("big", "10Gi"), ("small", "2Gi"), ("tiny", "1Mi")):
        world.create(volume(name, size))
    world.create(claim())
    step(world)
    step(world)
    assert phases(world) == {"data": "Bound", "small": "Bound", "big": "Available", "tiny": "Available"}
    view = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data")
    assert view.spec.volumeName == "small"
    assert view.status["capacity"] == {"storage": "2Gi"}
    assert view.metadata.annotations["pv.kubernetes.io/bind-completed"] == "yes"
    revision = world.state.revision
    step(world)
    assert world.state.revision == revision


def test_two_claims_never_share_a_volume_and_the_second_waits() -> None:
    world = World()
    world.create(volume("one"))
    world.create(claim("a"))
    world.create(claim("b"))
    for _ in range(3):
        step(world)
    assert sorted(phases(world).values()) == ["Bound", "Bound", "Pending"]
    assert "no persistent volumes available for this claim and no storage class is set" in [
        e.message for e in world.events
    ]


def test_a_crash_in_the_middle_of_binding_is_finished_later() -> None:
    for writes in range(5):
        world = World()
        world.create(volume("one"))
        world.create(claim())
        view, volumes = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data"), world.views(kinds.PERSISTENT_VOLUME)
        world.apply(claim_plan.plan(view, volumes, {}).actions, crash_after=writes)
        step(world)
        step(world)
        assert phases(world) == {"data": "Bound", "one": "Bound"}, writes


def test_the_first_consumer_decides_where_a_volume_is_made_and_it_is_made_once() -> None:
    world = World()
    world.create(storage_class())
    world.create(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "h1"}}}
    )
    world.create(claim(storageClassName="standard"))
    step(world)
    assert [event.reason for event in world.events] == ["WaitForFirstConsumer"]
    classes = {each.metadata.name: each for each in world.views(kinds.STORAGE_CLASS)}
    waiting = claim_plan.plan(world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data"), [], classes, ["web-1", "web-0"])
    assert [action.message for action in waiting.actions if isinstance(action, Emit)] == [
        "waiting for pods web-0,web-1 to be scheduled"
    ]
    patch = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}}
    world.patch(kinds.PERSISTENT_VOLUME_CLAIM, "data", patch)
    step(world)
    view = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data")
    assert view.metadata.annotations["volume.kubernetes.io/storage-provisioner"] == local_path.NAME
    made = local_path.provision(
        view, world.view(kinds.STORAGE_CLASS, "standard"), world.view(kinds.NODE, "n1"), "/base"
    )
    world.apply(made.actions)
    step(world)
    step(world)
    (only,) = world.views(kinds.PERSISTENT_VOLUME)
    assert phases(world) == {"data": "Bound", only.metadata.name: "Bound"}
    term = only.spec.nodeAffinity["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
    assert (term["key"], term["values"]) == ("kubernetes.io/hostname", ["h1"])
    assert only.spec.hostPath["path"].startswith("/base/pvc-")


def test_a_deleted_claim_releases_its_volume_and_the_policy_decides_the_rest() -> None:
    for policy, left in (("Retain", True), ("Delete", False)):
        world = World()
        made = volume("one", persistentVolumeReclaimPolicy=policy)
        made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": local_path.NAME}
        world.create(made)
        world.create(claim())
        step(world)
        step(world)
        world.state.delete(kinds.PERSISTENT_VOLUME_CLAIM, "default", "data")
        step(world)
        assert phases(world) == {"one": "Released"}
        world.apply(local_path.reclaim(world.view(kinds.PERSISTENT_VOLUME, "one"), None, "").actions)
        assert bool(world.views(kinds.PERSISTENT_VOLUME)) is left
        if left:
            world.create(claim())
            step(world)
            assert phases(world) == {"one": "Released", "data": "Pending"}, "data of another must not be handed on"


def test_with_an_image_a_pod_on_the_node_removes_the_directory_first() -> None:
    world = World()
    world.create(volume("one", persistentVolumeReclaimPolicy="Delete", hostPath={"path": "/base/pvc-1_default_data"}))
    world.patch(kinds.PERSISTENT_VOLUME, "one", {"status": {"phase": "Released"}}, "status")
    plan = local_path.reclaim(world.view(kinds.PERSISTENT_VOLUME, "one"), None, "busybox")
    world.apply(plan.actions)
    pod = world.state.get(kinds.POD, "kube-system", "remove-one")
    assert pod["spec"]["containers"][0]["command"] == ["rm", "-rf", "--", "/volumes/pvc-1_default_data"]
    assert world.views(kinds.PERSISTENT_VOLUME)
    world.state.patch(
        kinds.POD, "kube-system", "remove-one", 2, b'{"status":{"phase":"Succeeded"}}', "status", dry_run=False
    )
    (remover,) = world.pods()
    world.apply(local_path.reclaim(world.view(kinds.PERSISTENT_VOLUME, "one"), remover, "busybox").actions)
    assert not world.views(kinds.PERSISTENT_VOLUME)
    assert not world.pods()


def test_a_lost_volume_is_said() -> None:
    world = World()
    world.create(volume("one"))
    world.create(claim())
    step(world)
    step(world)
    world.state.delete(kinds.PERSISTENT_VOLUME, "", "one")
    step(world)
    assert phases(world) == {"data": "Lost"}
    assert world.events[-1].reason == "ClaimLost"


def test_a_claim_in_use_outlives_its_deletion() -> None:
    world = World()
    world.create(claim())
    view = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data")
    world.apply(protection.of_claim(view, []))
    assert world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data").metadata.finalizers == ("kubernetes.io/pvc-protection",)
    template = pod_template({}, nodeName="n1")
    world.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template["spec"]})
    world.state.delete(kinds.PERSISTENT_VOLUME_CLAIM, "default", "data")
    view = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data")
    assert protection.of_claim(view, world.pods()) == []
    world.run_pod("p", phase="Succeeded")
    world.apply(protection.of_claim(view, world.pods()))
    assert not world.views(kinds.PERSISTENT_VOLUME_CLAIM)
