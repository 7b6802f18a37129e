"""What a rollout may and may not do, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager import pods as podlib
from services.controller_manager.actions import find_condition, status_patch
from services.controller_manager.controllers.deployment import plan as planner
from services.controller_manager.controllers.deployment import rollout
from services.controller_manager.controllers.replicaset import plan as replicas
from services.controller_manager.views.workloads import Deployment
from tests.support.controllers import deployment
from tests.support.plan_world import World


def step(world: World, name: str = "web") -> list[Any]:
    """One pass of the deployment controller."""
    obj: Deployment = world.view(kinds.DEPLOYMENT, name)
    owned = [rs for rs in world.views(kinds.REPLICA_SET) if (o := rs.metadata.controller) and o.uid == obj.metadata.uid]
    running = {
        rs.metadata.uid: sum(
            1 for pod in world.pods() if pod.metadata.controller.uid == rs.metadata.uid and not podlib.is_terminal(pod)
        )
        for rs in owned
    }
    actions = planner.plan(planner.Observed(obj, owned, running), world.now).actions
    world.apply(actions)
    return actions


def step_replica_sets(world: World) -> None:
    """One pass of the ReplicaSet controller over all sets."""
    for rs in world.views(kinds.REPLICA_SET):
        own = [pod for pod in world.pods() if pod.metadata.controller.uid == rs.metadata.uid]
        world.apply(replicas.scale(kinds.REPLICA_SET, rs, own, own, world.now))
        own = [pod for pod in world.pods() if pod.metadata.controller.uid == rs.metadata.uid]
        world.apply(status_patch(kinds.REPLICA_SET, rs, replicas.status(rs, own, None, world.now)))


def settle(world: World) -> None:
    """Run everything, pods included, until nothing changes."""
    for _ in range(200):
        before = world.state.revision
        step(world)
        step_replica_sets(world)
        for pod in world.pods():
            if pod.metadata.deletionTimestamp is not None:
                world.end_pod(pod.metadata.name)
            elif pod.status.phase == "Pending":
                world.run_pod(pod.metadata.name)
        if world.state.revision == before:
            return
    raise AssertionError("never settles")


def change_image(world: World, image: str) -> None:
    containers = deployment(image=image)["spec"]["template"]["spec"]["containers"]
    world.patch(kinds.DEPLOYMENT, "web", {"spec": {"template": {"spec": {"containers": containers}}}})


int_or_percent = st.one_of(st.integers(0, 12), st.integers(0, 100).map(lambda n: f"{n}%"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_rollout_never_exceeds_surge_and_never_goes_below_what_must_be_available(data: st.DataObject) -> None:
    world = World()
    size = data.draw(st.integers(1, 10), "replicas")
    surge, unavailable = data.draw(int_or_percent, "maxSurge"), data.draw(int_or_percent, "maxUnavailable")
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    world.create(deployment("web", size, strategy=strategy))
    settle(world)
    limits = rollout.bounds(world.view(kinds.DEPLOYMENT, "web"))
    for number in range(data.draw(st.integers(1, 2), "updates")):
        change_image(world, f"nginx:{number + 2}")
        for _ in range(data.draw(st.integers(3, 25), "steps")):
            world.advance(1)
            match data.draw(st.sampled_from(["plan", "replicas", "start", "end"]), "what happens"):
                case "plan":
                    step(world)
                case "replicas":
                    step_replica_sets(world)
                case "start":
                    waiting = [pod for pod in world.pods() if pod.status.phase == "Pending" and podlib.is_active(pod)]
                    if waiting:
                        world.run_pod(data.draw(st.sampled_from(waiting), "pod").metadata.name)
                case "end":
                    for pod in world.pods():
                        if pod.metadata.deletionTimestamp is not None:
                            world.end_pod(pod.metadata.name)
            active = [pod for pod in world.pods() if podlib.is_active(pod)]
            assert len(active) <= size + limits.surge
            assert sum(map(podlib.is_ready, active)) >= size - limits.unavailable
    settle(world)
    status = world.view(kinds.DEPLOYMENT, "web").status
    assert status["updatedReplicas"] == status["replicas"] == status["availableReplicas"] == size
    assert find_condition(status, "Progressing")["reason"] == "NewReplicaSetAvailable"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 8), st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 4))
def test_scaling_in_the_middle_of_a_rollout_ends_where_it_should(first: int, sizes: list[int], after: int) -> None:
    world = World()
    world.create(deployment("web", first))
    settle(world)
    change_image(world, "nginx:2")
    for _ in range(after):
        step(world)
        step_replica_sets(world)
    for size in sizes:
        world.patch(kinds.DEPLOYMENT, "web", {"spec": {"replicas": size}})
        step(world)
        step_replica_sets(world)
    settle(world)
    assert len(world.pods()) == sizes[-1]
    assert {pod.spec.containers[0].name for pod in world.pods()} <= {"c"}
    (new,) = [rs for rs in world.views(kinds.REPLICA_SET) if rs.spec.replicas] if sizes[-1] else [None]
    assert new is None or b"nginx:2" in bytes(new.spec.template)


def test_a_scale_in_the_middle_keeps_the_proportions() -> None:
    world = World()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    world.create(deployment("web", 10, strategy=strategy))
    settle(world)
    change_image(world, "nginx:2")
    for _ in range(3):
        step(world)
        step_replica_sets(world)
    sizes = {rs.spec.replicas for rs in world.views(kinds.REPLICA_SET)}
    assert sizes == {8, 5}
    world.patch(kinds.DEPLOYMENT, "web", {"spec": {"replicas": 15}})
    step(world)
    # The documented example: 15 + 3 pods, the larger set gets the larger part of the five.
    assert {rs.spec.replicas for rs in world.views(kinds.REPLICA_SET)} == {11, 7}


def test_a_stuck_rollout_says_so_after_its_deadline() -> None:
    world = World()
    world.create(deployment("web", 2, progressDeadlineSeconds=30))
    settle(world)
    change_image(world, "nginx:bad")
    for _ in range(4):
        step(world)
        step_replica_sets(world)
    world.advance(29)
    step(world)
    assert find_condition(world.view(kinds.DEPLOYMENT, "web").status, "Progressing")["status"] == "True"
    world.advance(10)
    step(world)
    condition = find_condition(world.view(kinds.DEPLOYMENT, "web").status, "Progressing")
    assert (condition["status"], condition["reason"]) == ("False", "ProgressDeadlineExceeded")
    new = next(rs for rs in world.views(kinds.REPLICA_SET) if b"bad" in bytes(rs.spec.template))
    assert condition["message"] == f'ReplicaSet "{new.metadata.name}" has timed out progressing.'


@pytest.mark.parametrize("strategy", ["RollingUpdate", "Recreate"])
def test_one_that_was_complete_and_lost_pods_long_after_is_late_for_nothing(strategy: str) -> None:
    world = World()
    world.create(deployment("web", 2, progressDeadlineSeconds=30, strategy={"type": strategy}))
    settle(world)
    world.advance(600)
    lost = world.pods()[0].metadata.name
    world.state.delete(kinds.POD, "default", lost)
    world.end_pod(lost)
    step_replica_sets(world)
    for _ in range(3):
        step(world)
    obj: Deployment = world.view(kinds.DEPLOYMENT, "web")
    owned = world.views(kinds.REPLICA_SET)
    assert obj.status.get("readyReplicas", 0) < 2
    plan = planner.plan(planner.Observed(obj, owned, {owned[0].metadata.uid: 1}), world.now)
    assert (plan.actions, plan.requeue_after) == ([], None)
    assert find_condition(obj.status, "Progressing")["reason"] == "NewReplicaSetAvailable"


def test_a_paused_deployment_scales_and_does_not_roll_and_resumes() -> None:
    world = World()
    world.create(deployment("web", 2))
    settle(world)
    world.patch(kinds.DEPLOYMENT, "web", {"spec": {"paused": True, "replicas": 4}})
    change_image(world, "nginx:2")
    settle(world)
    assert len(world.pods()) == 4
    assert len(world.views(kinds.REPLICA_SET)) == 1
    assert find_condition(world.view(kinds.DEPLOYMENT, "web").status, "Progressing")["reason"] == "DeploymentPaused"
    world.patch(kinds.DEPLOYMENT, "web", {"spec": {"paused": False}})
    settle(world)
    assert (
        find_condition(world.view(kinds.DEPLOYMENT, "web").status, "Progressing")["reason"] == "NewReplicaSetAvailable"
    )
    assert len(world.views(kinds.REPLICA_SET)) == 2


def test_old_replica_sets_beyond_the_history_limit_are_forgotten_oldest_first() -> None:
    world = World()
    world.create(deployment("web", 1, revisionHistoryLimit=2))
    settle(world)
    for number in range(5):
        world.advance(5)
        change_image(world, f"nginx:{number + 2}")
        settle(world)
    kept = sorted(rs.metadata.annotations["deployment.kubernetes.io/revision"] for rs in world.views(kinds.REPLICA_SET))
    assert kept == ["4", "5", "6"]


def test_a_selector_of_everything_changes_nothing_and_says_why() -> None:
    world = World()
    world.create(deployment("web", 2, selector={}))
    step(world)
    assert world.events[0].reason == "SelectingAll"
    assert not world.views(kinds.REPLICA_SET)
