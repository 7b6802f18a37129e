"""Nodes: silence, taints, eviction, addresses; and pods that nobody else removes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager.actions import Delete
from services.controller_manager.controllers.node_ipam import plan as ipam
from services.controller_manager.controllers.node_lifecycle import plan as lifecycle
from services.controller_manager.controllers.node_lifecycle import zones
from services.controller_manager.controllers.node_ttl.controller import STEPS, step_for
from services.controller_manager.controllers.pod_gc import plan as pod_gc
from services.controller_manager.controllers.taint_eviction import plan as eviction
from services.controller_manager.views.pod import Taint
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def add_node(world: World, name: str, ready: str = "True", **spec: Any) -> None:
    world.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    world.patch(kinds.NODE, name, {"status": {"conditions": conditions}}, "status")


def add_pod(world: World, name: str, node: str = "n1", phase: str = "Running", **spec: Any) -> None:
    body = pod_template({}, nodeName=node, **spec)["spec"]
    world.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body})
    world.run_pod(name, phase=phase)


def judge(world: World, name: str, silent_for: float, eviction: lifecycle.Eviction = lifecycle.Eviction.ALLOWED) -> Any:
    heartbeat = lifecycle.Heartbeat(world.now - timedelta(seconds=silent_for), heard=True)
    node = world.view(kinds.NODE, name)
    out = lifecycle.plan(node, world.pods(), heartbeat, eviction, world.now)
    for action in out.actions:
        # What the applier does: a second write to the same object follows on the first.
        world.apply([action] if not getattr(action, "revision", 0) else [_latest(world, action)])
    assert not world.errors, world.errors
    return out


def _latest(world: World, action: Any) -> Any:
    from dataclasses import replace

    current = world.state.get(action.kind, action.namespace, action.name)
    return replace(action, revision=int(current["metadata"]["resourceVersion"]))


def taints(world: World, name: str) -> set[tuple[str, str]]:
    return {(taint.key, taint.effect) for taint in world.view(kinds.NODE, name).spec.taints}


def test_a_node_that_is_silent_beyond_the_grace_is_unknown_and_its_pods_are_not_ready() -> None:
    world = World()
    add_node(world, "n1")
    add_pod(world, "p")
    out = judge(world, "n1", 49)
    assert not out.actions
    assert out.requeue_after <= 1.2
    judge(world, "n1", 51)
    conditions = {entry.type: entry for entry in world.view(kinds.NODE, "n1").status.conditions}
    assert (conditions["Ready"].status, conditions["Ready"].reason) == ("Unknown", "NodeStatusUnknown")
    assert conditions["Ready"].message == "Kubelet stopped posting node status."
    assert conditions["DiskPressure"].reason == "NodeStatusNeverUpdated"
    key = "node.kubernetes.io/unreachable"
    assert taints(world, "n1") == {(key, "NoSchedule"), (key, "NoExecute")}
    ready = next(entry for entry in world.pods()[0].status.conditions if entry.type == "Ready")
    assert ready.status == "False"


def test_taints_follow_conditions_and_leave_other_peoples_alone() -> None:
    world = World()
    add_node(world, "n1", ready="False", taints=[{"key": "mine", "effect": "NoSchedule"}], unschedulable=True)
    judge(world, "n1", 1)
    assert taints(world, "n1") == {
        ("mine", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    }
    conditions = [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]
    patch = {"spec": {"unschedulable": None}, "status": {"conditions": conditions}}
    world.patch(kinds.NODE, "n1", {"spec": patch["spec"]})
    world.patch(kinds.NODE, "n1", {"status": patch["status"]}, "status")
    judge(world, "n1", 1)
    assert taints(world, "n1") == {("mine", "NoSchedule"), ("node.kubernetes.io/disk-pressure", "NoSchedule")}


def test_if_all_nodes_are_silent_none_is_emptied_and_a_zone_is_emptied_at_its_own_pace() -> None:
    world = World()

    health = zones.Health()

    def pace() -> dict[str, float] | None:
        # Kept as nodes change, it is what counting all of them anew finds.
        anew = zones.Health()
        for node in world.views(kinds.NODE):
            anew.set(node.metadata.name, node)
            health.set(node.metadata.name, node)
        assert health.eviction_pace() == anew.eviction_pace()
        assert health.unwell == anew.unwell
        return health.eviction_pace()

    for number in range(3):
        add_node(world, f"n{number}", ready="Unknown")
    assert pace() is None
    add_node(world, "well")
    assert pace() == {}, "most of a small zone is silent: wait"
    add_node(world, "elsewhere")
    world.patch(kinds.NODE, "elsewhere", {"metadata": {"labels": {zones.ZONE_LABEL: "b"}}})
    assert pace() == {":b": 10.0}
    for number in range(3, 6):
        add_node(world, f"n{number}")
    assert pace() == {":": 10.0, ":b": 10.0}
    for number in range(60):
        add_node(world, f"x{number}", ready="Unknown")
    assert pace() == {":": 100.0, ":b": 10.0}, "a large zone goes on, slowly"
    for number in range(60):
        health.set(f"x{number}", None)
    assert health.eviction_pace() == {":": 10.0, ":b": 10.0}
    assert health.unwell == {"n0", "n1", "n2"}


def test_the_taint_that_evicts_is_taken_back_when_every_node_is_lost() -> None:
    world = World()
    add_node(world, "n1", ready="Unknown")
    key = "node.kubernetes.io/unreachable"
    judge(world, "n1", 100)
    assert taints(world, "n1") == {(key, "NoSchedule"), (key, "NoExecute")}
    judge(world, "n1", 100, lifecycle.Eviction.HELD)
    assert (key, "NoExecute") in taints(world, "n1")
    judge(world, "n1", 100, lifecycle.Eviction.REVOKED)
    assert taints(world, "n1") == {(key, "NoSchedule")}


def test_what_kubelets_may_keep_grows_with_the_cluster_and_does_not_waver() -> None:
    assert [STEPS[step_for(nodes, 0)][2] for nodes in (1, 100, 101, 501, 5000)] == [0, 0, 15, 30, 300]
    assert step_for(95, 1) == 1, "between 90 and 100 the step stays what it was"
    assert step_for(95, 0) == 0
    assert step_for(89, 1) == 0


def test_tolerations_decide_whether_and_when_a_pod_leaves() -> None:
    world = World()
    key = "node.kubernetes.io/unreachable"
    for name, toleration in (
        ("now", []),
        ("later", [{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]),
        ("never", [{"operator": "Exists"}]),
    ):
        add_pod(world, name, tolerations=toleration)
    taint = Taint(key, "", "NoExecute", world.now)

    def leaves(name: str) -> Any:
        pod = world.view(kinds.POD, name)
        return eviction.plan(pod, [taint], taint.timeAdded, world.now)

    assert isinstance(leaves("now").actions[-1], Delete)
    assert leaves("now").actions[0].patch["status"]["conditions"][-1]["reason"] == "DeletionByTaintManager"
    assert leaves("later").actions == []
    assert leaves("later").requeue_after == 300
    assert leaves("never").requeue_after is None
    world.advance(301)
    assert isinstance(leaves("later").actions[-1], Delete)
    assert leaves("never").actions == []


def test_a_pod_stays_whose_toleration_compares_with_the_taint_as_the_scheduler_does() -> None:
    world = World()
    add_pod(world, "cheap", tolerations=[{"key": "cost", "operator": "Lt", "value": "80", "effect": "NoExecute"}])
    pod = world.view(kinds.POD, "cheap")
    assert eviction.leave_at(pod, [Taint("cost", "70", "NoExecute")], world.now) is None
    assert eviction.leave_at(pod, [Taint("cost", "80", "NoExecute")], world.now) == world.now


@given(st.lists(st.sampled_from(["add", "remove"]), max_size=40))
def test_no_two_nodes_ever_share_addresses(changes: list[str]) -> None:
    world = World()
    import ipaddress

    pools = [ipam.Pool(ipaddress.ip_network("10.0.0.0/20"), 24), ipam.Pool(ipaddress.ip_network("fd00::/56"), 64)]
    alive: list[str] = []
    for number, change in enumerate(changes):
        if change == "add":
            name = f"n{number}"
            world.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}})
            alive.append(name)
            plan = ipam.plan(world.view(kinds.NODE, name), world.views(kinds.NODE), [], pools)
            world.apply(plan.actions)
            if len(alive) > 16:
                assert world.events[-1].reason == "CIDRNotAvailable"
                world.state.delete(kinds.NODE, "", alive.pop())
        elif alive:
            world.state.delete(kinds.NODE, "", alive.pop(0))
        ranges = [text for node in world.views(kinds.NODE) for text in node.spec.podCIDRs]
        assert len(set(ranges)) == len(ranges) == 2 * len(alive)


def test_pods_of_a_node_that_is_gone_fail_and_go_and_old_ended_ones_too() -> None:
    world = World()
    add_node(world, "n1")
    add_pod(world, "orphan", node="gone")
    add_pod(world, "stays")
    for number in range(4):
        world.advance(1)
        add_pod(world, f"done-{number}", phase="Succeeded")
    pods = world.pods()
    assert pod_gc.unknown_nodes(pods, world.views(kinds.NODE)) == {"gone"}
    world.apply(pod_gc.plan(pods, world.views(kinds.NODE), {"gone"}, world.now, maximum=2).actions)
    assert sorted(pod.metadata.name for pod in world.pods()) == ["done-2", "done-3", "stays"]
