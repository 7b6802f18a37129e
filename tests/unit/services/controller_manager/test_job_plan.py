"""Jobs: counts that never double, limits, indexes and policies."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager.actions import is_true
from services.controller_manager.controllers.job import plan as planner
from services.controller_manager.controllers.job.indexes import index_of, parse, render
from services.controller_manager.pods import is_active
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def job(name: str = "work", **spec: Any) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/controller-uid": "u", "job-name": name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": pod_template(labels, restartPolicy="Never"),
            "podReplacementPolicy": "TerminatingOrFailed",
            **spec,
        },
    }


def step(world: World, crash_after: int | None = None) -> None:
    obj = world.view(kinds.JOB, "work")
    pods = [pod for pod in world.pods() if (o := pod.metadata.controller) and o.uid == obj.metadata.uid]
    plan = planner.plan(obj, pods, world.now)
    world.apply(plan.actions, crash_after)
    assert not world.errors, world.errors


def status(world: World) -> dict[str, Any]:
    return world.view(kinds.JOB, "work").status


def settle(world: World) -> None:
    for _ in range(50):
        before = world.state.revision
        step(world)
        for pod in world.pods():
            if pod.metadata.deletionTimestamp is not None:
                world.end_pod(pod.metadata.name)
        if world.state.revision == before:
            return
    raise AssertionError("never settles")


def active(world: World) -> list[Any]:
    return [pod for pod in world.pods() if is_active(pod)]


@given(st.sets(st.integers(0, 60)))
def test_indexes_survive_their_text_form(indexes: set[int]) -> None:
    assert parse(render(indexes)) == indexes


def test_indexes_are_written_as_upstream_writes_them() -> None:
    assert render({1, 3, 4, 5, 7, 8}) == "1,3-5,7,8"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_counts_are_exact_whatever_crashes_in_between(data: st.DataObject) -> None:
    world = World()
    completions, parallelism = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    indexed = data.draw(st.booleans())
    mode = "Indexed" if indexed else "NonIndexed"
    world.create(job(completions=completions, parallelism=parallelism, completionMode=mode, backoffLimit=50))
    ended: dict[str, str] = {}
    for _ in range(60):
        world.advance(700)
        step(world, data.draw(st.one_of(st.none(), st.integers(0, 3)), "crash after"))
        running = active(world)
        assert len(running) <= parallelism
        if indexed:
            assert len({index_of(pod) for pod in running}) == len(running), "two pods of one index"
        if running and data.draw(st.booleans(), "one ends"):
            pod = data.draw(st.sampled_from(running), "pod")
            ended[pod.metadata.uid] = data.draw(st.sampled_from(["Succeeded", "Succeeded", "Failed"]), "how")
            world.run_pod(pod.metadata.name, phase=ended[pod.metadata.uid])
        if data.draw(st.integers(0, 5), "restart") == 0 and planner.is_finished(status(world)):
            break
    settle(world)
    final = status(world)
    outcomes = list(ended.values())
    if is_true(final, "Complete"):
        assert final["succeeded"] == completions
    else:
        assert final.get("succeeded", 0) == outcomes.count("Succeeded")
        assert final.get("failed", 0) == outcomes.count("Failed")
    assert final.get("uncountedTerminatedPods", {}) == {}
    if is_true(final, "Complete"):
        assert not any(pod.metadata.finalizers for pod in world.pods())


def test_a_job_completes_and_says_so() -> None:
    world = World()
    world.create(job(completions=2, parallelism=2))
    settle(world)
    assert status(world)["active"] == 2
    for pod in active(world):
        world.run_pod(pod.metadata.name, phase="Succeeded")
    settle(world)
    final = status(world)
    assert [c["type"] for c in final["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert final["conditions"][1]["reason"] == "CompletionsReached"
    assert final["succeeded"] == 2
    assert final["completionTime"]
    assert (final["ready"], final["terminating"]) == (0, 0)
    assert [event.reason for event in world.events] == ["Completed"]


def test_failures_back_off_and_then_fail_the_job() -> None:
    world = World()
    world.create(job(backoffLimit=2))
    settle(world)
    for wait in (10, 20):
        world.run_pod(active(world)[0].metadata.name, phase="Failed")
        settle(world)
        assert not active(world)
        world.advance(wait - 1)
        settle(world)
        assert not active(world), "a failed pod was replaced too early"
        world.advance(2)
        settle(world)
        assert len(active(world)) == 1
    world.run_pod(active(world)[0].metadata.name, phase="Failed")
    settle(world)
    final = status(world)
    assert final["failed"] == 3
    assert [c["type"] for c in final["conditions"]] == ["FailureTarget", "Failed"]
    assert final["conditions"][1]["reason"] == "BackoffLimitExceeded"
    assert final["conditions"][1]["message"] == "Job has reached the specified backoff limit"


def test_a_deadline_ends_running_pods_and_the_job() -> None:
    world = World()
    world.create(job(activeDeadlineSeconds=60))
    settle(world)
    world.advance(61)
    settle(world)
    assert not active(world)
    assert [c["reason"] for c in status(world)["conditions"]] == ["DeadlineExceeded", "DeadlineExceeded"]


def test_suspending_removes_pods_without_counting_them_and_resuming_starts_anew() -> None:
    world = World()
    world.create(job(parallelism=2, completions=2))
    settle(world)
    world.patch(kinds.JOB, "work", {"spec": {"suspend": True}})
    settle(world)
    assert not world.pods()
    assert "startTime" not in status(world)
    assert status(world).get("failed", 0) == 0
    world.patch(kinds.JOB, "work", {"spec": {"suspend": False}})
    settle(world)
    assert len(active(world)) == 2
    assert [event.reason for event in world.events] == ["Suspended", "Resumed"]


def test_an_index_that_fails_too_often_fails_alone() -> None:
    world = World()
    world.create(job(completions=3, parallelism=3, completionMode="Indexed", backoffLimit=2**31 - 1,
                     backoffLimitPerIndex=1))  # fmt: skip
    settle(world)
    for pod in active(world):
        world.run_pod(pod.metadata.name, phase="Failed" if index_of(pod) == 1 else "Succeeded")
    settle(world)
    world.advance(11)
    settle(world)
    (again,) = active(world)
    assert again.metadata.annotations["batch.kubernetes.io/job-index-failure-count"] == "1"
    world.run_pod(again.metadata.name, phase="Failed")
    settle(world)
    final = status(world)
    assert (final["completedIndexes"], final["failedIndexes"]) == ("0,2", "1")
    assert final["conditions"][-1]["reason"] == "FailedIndexes"


def test_an_exit_code_may_fail_the_job_at_once_or_not_count() -> None:
    rules = [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    for code, conditions, failed, reason in (
        (42, [], 1, "PodFailurePolicy"),
        (1, [{"type": "DisruptionTarget", "status": "True"}], 0, None),
    ):
        world = World()
        world.create(job(podFailurePolicy={"rules": rules}, podReplacementPolicy="Failed"))
        settle(world)
        name = active(world)[0].metadata.name
        ended = {"name": "c", "state": {"terminated": {"exitCode": code}}}
        world.run_pod(name, phase="Failed", containerStatuses=[ended], conditions=conditions)
        settle(world)
        assert status(world).get("failed", 0) == failed
        conditions_now = status(world).get("conditions", [])
        assert (conditions_now[-1]["reason"] if conditions_now else None) == reason
        if reason:
            text = f"Container c for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
            assert conditions_now[-1]["message"] == text


def test_more_successes_than_were_asked_for_are_said() -> None:
    world = World()
    world.create(job(completions=2, parallelism=2))
    settle(world)
    for pod in active(world):
        world.run_pod(pod.metadata.name, phase="Succeeded")
    world.patch(kinds.JOB, "work", {"spec": {"completions": 1}})
    settle(world)
    assert status(world)["succeeded"] == 2
    assert [event.reason for event in world.events][-2:] == ["TooManySucceededPods", "Completed"]


def test_a_success_policy_ends_the_job_early() -> None:
    world = World()
    policy = {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}
    world.create(job(completions=4, parallelism=4, completionMode="Indexed", successPolicy=policy))
    settle(world)
    leader = next(pod for pod in active(world) if index_of(pod) == 1)
    world.run_pod(leader.metadata.name, phase="Succeeded")
    settle(world)
    assert not active(world)
    final = status(world)
    assert final["completedIndexes"] == "1"
    assert final["conditions"][0]["reason"] == "SuccessPolicy"
    assert is_true(final, "Complete")
