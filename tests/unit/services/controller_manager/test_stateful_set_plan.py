"""StatefulSets: order, identity, partitions, claims."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager import pods as podlib
from services.controller_manager.controllers.stateful_set import plan as planner
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def stateful_set(replicas: int = 3, image: str = "db:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": pod_template({"app": "db"}, image),
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
    }


def step(world: World) -> None:
    owner = world.view(kinds.STATEFUL_SET, "db")
    claims = world.views(kinds.PERSISTENT_VOLUME_CLAIM)
    plan = planner.plan(owner, world.pods(), claims, world.views(kinds.CONTROLLER_REVISION), world.now)
    world.apply(plan.actions)
    assert not world.errors, world.errors


def settle(world: World, ready: bool = True) -> None:
    for _ in range(300):
        before = world.state.revision
        step(world)
        kubelet(world, ready)
        if world.state.revision == before:
            return
    raise AssertionError("never settles")


def kubelet(world: World, ready: bool = True) -> None:
    for pod in world.pods():
        if pod.metadata.deletionTimestamp is not None:
            world.end_pod(pod.metadata.name)
        elif pod.status.phase == "Pending" and ready:
            world.run_pod(pod.metadata.name)


def names(world: World) -> list[str]:
    return sorted(pod.metadata.name for pod in world.pods())


def images(world: World) -> dict[str, str]:
    return {
        pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"]
        for pod in world.state.list(kinds.POD, "default", lambda obj: True)
    }


def change_image(world: World, image: str) -> None:
    containers = pod_template({}, image)["spec"]["containers"]
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"template": {"spec": {"containers": containers}}}})


def test_ordered_pods_start_one_after_another_and_stop_in_reverse() -> None:
    world = World()
    world.create(stateful_set(3))
    for count in (1, 2, 3):
        for _ in range(3):
            step(world)
        assert names(world) == [f"db-{number}" for number in range(count)]
        kubelet(world)
    settle(world)
    status = world.view(kinds.STATEFUL_SET, "db").status
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"]) == (3, 3, 3)
    assert status["currentRevision"] == status["updateRevision"]
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"replicas": 1}})
    step(world)
    step(world)
    going = [pod.metadata.name for pod in world.pods() if pod.metadata.deletionTimestamp is not None]
    assert going == ["db-2"]
    settle(world)
    assert names(world) == ["db-0"]


def test_pods_have_their_name_as_host_and_label_and_their_own_claims() -> None:
    world = World()
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    world.create(stateful_set(2, volumeClaimTemplates=[claim]))
    settle(world)
    pod = world.state.get(kinds.POD, "default", "db-1")
    assert pod["spec"]["hostname"] == "db-1"
    assert pod["spec"]["subdomain"] == "db"
    assert pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert pod["spec"]["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
    assert {c.metadata.name for c in world.views(kinds.PERSISTENT_VOLUME_CLAIM)} == {"data-db-0", "data-db-1"}
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"replicas": 0}})
    settle(world)
    assert len(world.views(kinds.PERSISTENT_VOLUME_CLAIM)) == 2


def test_claims_follow_the_retention_policy() -> None:
    world = World()
    claim = {"metadata": {"name": "data"}, "spec": {}}
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    world.create(stateful_set(2, volumeClaimTemplates=[claim], persistentVolumeClaimRetentionPolicy=policy))
    settle(world)
    uid = world.view(kinds.STATEFUL_SET, "db").metadata.uid
    owners = [c.metadata.ownerReferences for c in world.views(kinds.PERSISTENT_VOLUME_CLAIM)]
    assert [[(owner.uid, owner.controller) for owner in each] for each in owners] == [[(uid, True)], [(uid, True)]]
    pod = world.view(kinds.POD, "db-1").metadata.uid
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"replicas": 1}})
    step(world)
    claim_view = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data-db-1")
    assert [(owner.uid, owner.controller) for owner in claim_view.metadata.ownerReferences] == [(pod, True)]


def claim_owned_by(world: World, *references: dict[str, Any]) -> Any:
    body = {"metadata": {"ownerReferences": list(references)}}
    world.patch(kinds.PERSISTENT_VOLUME_CLAIM, "data-db-0", body)
    step(world)
    claim = world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data-db-0")
    return [(each.kind, each.name, each.uid) for each in claim.metadata.ownerReferences]


def test_a_claim_that_others_control_or_an_earlier_set_had_is_left_alone_and_said() -> None:
    world = World()
    claim = {"metadata": {"name": "data"}, "spec": {}}
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    world.create(stateful_set(1, volumeClaimTemplates=[claim], persistentVolumeClaimRetentionPolicy=policy))
    settle(world)
    uid = world.view(kinds.STATEFUL_SET, "db").metadata.uid
    mine = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": uid, "controller": True}
    other = {"apiVersion": "x.io/v1", "kind": "Database", "name": "big", "uid": "u", "controller": True}
    plain = {**other, "controller": None}
    world.events.clear()
    # A reference that does not control, as earlier versions wrote it, is brought up to date; others' plain ones stay.
    assert claim_owned_by(world, {**mine, "controller": None}, plain) == [
        ("Database", "big", "u"),
        ("StatefulSet", "db", uid),
    ]
    assert world.view(kinds.PERSISTENT_VOLUME_CLAIM, "data-db-0").metadata.controller.uid == uid
    assert claim_owned_by(world, {**mine, "uid": "earlier"}) == [("StatefulSet", "db", "earlier")]
    assert world.events == []
    assert claim_owned_by(world, other, {**mine, "controller": None}) == [("Database", "big", "u")]
    assert {event.reason for event in world.events} == {"ConflictingController"}
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}})
    world.events.clear()
    assert claim_owned_by(world, other, {**mine, "controller": None}) == [("Database", "big", "u")]
    assert world.events == []


def test_an_update_stops_at_the_partition_and_survives_a_deleted_pod() -> None:
    world = World()
    world.create(stateful_set(3, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))
    settle(world)
    change_image(world, "db:2")
    settle(world)
    assert images(world) == {"db-0": "db:1", "db-1": "db:1", "db-2": "db:2"}
    world.end_pod("db-0")
    settle(world)
    assert images(world)["db-0"] == "db:1"
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    settle(world)
    assert set(images(world).values()) == {"db:2"}
    status = world.view(kinds.STATEFUL_SET, "db").status
    assert status["currentRevision"] == status["updateRevision"]
    change_image(world, "db:1")
    settle(world)
    revisions = world.views(kinds.CONTROLLER_REVISION)
    assert sorted(each.revision for each in revisions) == [2, 3]


def test_on_delete_waits_for_people() -> None:
    world = World()
    world.create(stateful_set(2, updateStrategy={"type": "OnDelete"}))
    settle(world)
    change_image(world, "db:2")
    settle(world)
    assert set(images(world).values()) == {"db:1"}
    world.end_pod("db-1")
    settle(world)
    assert images(world) == {"db-0": "db:1", "db-1": "db:2"}


def test_parallel_starts_all_at_once() -> None:
    world = World()
    world.create(stateful_set(4, podManagementPolicy="Parallel"))
    step(world)
    step(world)
    assert len(names(world)) == 4


def test_a_failed_pod_is_replaced_under_its_name() -> None:
    world = World()
    world.create(stateful_set(2))
    settle(world)
    uid = world.view(kinds.POD, "db-0").metadata.uid
    world.run_pod("db-0", phase="Failed")
    settle(world)
    assert world.view(kinds.POD, "db-0").metadata.uid != uid
    assert "RecreatingFailedPod" in [event.reason for event in world.events]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_an_ordered_set_loses_at_most_one_pod_at_a_time_and_none_starts_before_its_elder(data: st.DataObject) -> None:
    world = World()
    size = data.draw(st.integers(1, 5))
    world.create(stateful_set(size))
    settle(world)
    change_image(world, "db:2")
    for _ in range(40):
        match data.draw(st.sampled_from(["step", "end", "start"])):
            case "step":
                step(world)
            case "end":
                for pod in world.pods():
                    if pod.metadata.deletionTimestamp is not None:
                        world.end_pod(pod.metadata.name)
            case "start":
                for pod in world.pods():
                    if pod.status.phase == "Pending":
                        world.run_pod(pod.metadata.name)
        ready = [pod for pod in world.pods() if podlib.is_ready(pod) and pod.metadata.deletionTimestamp is None]
        assert len(ready) >= size - 1
        assert len(set(names(world))) == len(names(world)) <= size
    settle(world)
    assert set(images(world).values()) == {"db:2"}
