"""DaemonSets: where a daemon belongs, and how it is replaced."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager import pods as podlib
from services.controller_manager.controllers.daemon_set import plan as planner
from services.controller_manager.controllers.daemon_set.pods import target
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def daemon_set(image: str = "agent:1", template: dict[str, Any] | None = None, **rolling: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": pod_template({"app": "agent"}, image, **(template or {})),
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0, **rolling},
            },
            "revisionHistoryLimit": 10,
        },
    }


def world_of(nodes: int, **spec: Any) -> World:
    world = World()
    for number in range(nodes):
        add_node(world, f"n{number}")
    world.create(daemon_set(**spec))
    return world


def add_node(world: World, name: str, labels: dict[str, str] | None = None, taints: list[Any] | None = None) -> None:
    metadata = {"name": name, "labels": labels or {}}
    world.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints or []}})


def step(world: World) -> None:
    obj = world.view(kinds.DAEMON_SET, "agent")
    revisions = world.views(kinds.CONTROLLER_REVISION)
    plan = planner.plan(obj, world.views(kinds.NODE), world.pods(), revisions, world.now)
    world.apply(plan.actions)
    assert not world.errors, world.errors


def kubelets(world: World) -> None:
    for pod in world.pods():
        if pod.metadata.deletionTimestamp is not None:
            world.end_pod(pod.metadata.name)
        elif pod.status.phase == "Pending":
            world.run_pod(pod.metadata.name, node=target(pod))


def settle(world: World) -> None:
    for _ in range(100):
        before = world.state.revision
        step(world)
        kubelets(world)
        if world.state.revision == before:
            return
    raise AssertionError("never settles")


def where(world: World) -> list[str]:
    return sorted(target(pod) for pod in world.pods() if podlib.is_active(pod))


def images(world: World) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in world.state.list(kinds.POD, "default", lambda obj: True)}


def change_image(world: World, image: str) -> None:
    containers = pod_template({}, image)["spec"]["containers"]
    world.patch(kinds.DAEMON_SET, "agent", {"spec": {"template": {"spec": {"containers": containers}}}})


def test_every_node_gets_one_and_a_new_node_too() -> None:
    world = world_of(3)
    settle(world)
    assert where(world) == ["n0", "n1", "n2"]
    add_node(world, "n9")
    settle(world)
    assert where(world) == ["n0", "n1", "n2", "n9"]
    status = world.view(kinds.DAEMON_SET, "agent").status
    assert (status["desiredNumberScheduled"], status["numberAvailable"], status["updatedNumberScheduled"]) == (4, 4, 4)
    (revision,) = world.views(kinds.CONTROLLER_REVISION)
    assert world.pods()[0].metadata.labels["controller-revision-hash"] == revision.metadata.name.rpartition("-")[2]


def test_selectors_affinity_and_taints_choose_nodes() -> None:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["3"]}]}]}}}  # fmt: skip
    world = World()
    add_node(world, "small", {"disk": "ssd", "size": "2"})
    add_node(world, "big", {"disk": "ssd", "size": "8"})
    add_node(world, "slow", {"disk": "hdd", "size": "8"})
    add_node(world, "tainted", {"disk": "ssd", "size": "8"}, [{"key": "gpu", "effect": "NoSchedule"}])
    cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    add_node(world, "cordoned", {"disk": "ssd", "size": "8"}, [cordon])
    world.create(daemon_set(template={"nodeSelector": {"disk": "ssd"}, "affinity": affinity}))
    settle(world)
    assert where(world) == ["big", "cordoned"]
    pod = world.state.list(kinds.POD, "default", lambda obj: True)[0]
    (term,) = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"][0]["key"] == "size"
    world.patch(kinds.NODE, "big", {"metadata": {"labels": {"disk": "hdd"}}})
    settle(world)
    assert where(world) == ["cordoned"]


def test_a_failed_daemon_is_replaced_and_said() -> None:
    world = world_of(1)
    settle(world)
    world.run_pod(world.pods()[0].metadata.name, phase="Failed")
    settle(world)
    assert where(world) == ["n0"]
    assert "FailedDaemonPod" in [event.reason for event in world.events]


def test_on_delete_changes_nothing_by_itself() -> None:
    world = world_of(2)
    settle(world)
    world.patch(kinds.DAEMON_SET, "agent", {"spec": {"updateStrategy": {"type": "OnDelete"}}})
    change_image(world, "agent:2")
    settle(world)
    assert images(world) == {"agent:1"}
    assert world.view(kinds.DAEMON_SET, "agent").status.get("updatedNumberScheduled", 0) == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_an_update_keeps_its_bounds(data: st.DataObject) -> None:
    nodes = data.draw(st.integers(1, 5))
    surging = data.draw(st.booleans())
    amount = data.draw(st.integers(1, 3))
    world = world_of(nodes, **({"maxSurge": amount, "maxUnavailable": 0} if surging else {"maxUnavailable": amount}))
    settle(world)
    change_image(world, "agent:2")
    for _ in range(30):
        match data.draw(st.sampled_from(["step", "end", "start"])):
            case "step":
                step(world)
            case "end":
                for pod in world.pods():
                    if pod.metadata.deletionTimestamp is not None:
                        world.end_pod(pod.metadata.name)
            case "start":
                pending = [pod for pod in world.pods() if pod.status.phase == "Pending"]
                if pending:
                    pod = data.draw(st.sampled_from(pending))
                    world.run_pod(pod.metadata.name, node=target(pod))
        active = [pod for pod in world.pods() if podlib.is_active(pod)]
        served = {target(pod) for pod in active if podlib.is_ready(pod)}
        assert len(served) >= nodes - (0 if surging else amount)
        for node in {target(pod) for pod in active}:
            assert sum(target(pod) == node for pod in active) <= (2 if surging else 1)
        assert len(active) <= nodes + (amount if surging else 0)
    settle(world)
    assert images(world) == {"agent:2"}
    assert len(world.pods()) == nodes


def test_one_that_is_being_deleted_makes_no_pod_and_replaces_none() -> None:
    world = world_of(2)
    settle(world)
    world.state.delete(kinds.DAEMON_SET, "default", "agent", propagation="Foreground")
    world.end_pod(world.pods()[0].metadata.name)
    template = daemon_set(image="agent:2")["spec"]["template"]
    world.patch(kinds.DAEMON_SET, "agent", {"spec": {"template": template}})
    (left,) = world.pods()
    for _ in range(3):
        step(world)
    assert [pod.metadata.uid for pod in world.pods()] == [left.metadata.uid]
    assert world.pods()[0].metadata.deletionTimestamp is None
