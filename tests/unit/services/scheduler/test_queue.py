"""When a pod is tried: order, back-off, and which events wake it. Time is a number."""

from __future__ import annotations

from services.scheduler.framework import ClusterEvent
from services.scheduler.objects import Container, Metadata, Named, Pod, PodSpec, Resources
from services.scheduler.pod_info import PodInfo
from services.scheduler.queue import SchedulingQueue

FREED = ClusterEvent("Pod", "Delete")


def pod(name: str, priority: int = 0, cpu: str = "1", **spec: object) -> PodInfo:
    container = Container(name="c", resources=Resources(requests={"cpu": cpu}))
    metadata = Metadata(name=name, namespace="d", uid=name)
    return PodInfo(Pod(metadata=metadata, spec=PodSpec(containers=[container], priority=priority, **spec)))  # type: ignore[arg-type]


def popped(queue: SchedulingQueue, now: float) -> str:
    found = queue.pop(now)
    return found.pod.uid if found else ""


def test_higher_priority_first_then_who_waits_longer() -> None:
    queue = SchedulingQueue()
    for now, (name, priority) in enumerate([("old", 0), ("high", 5), ("new", 0)]):
        queue.add(pod(name, priority), float(now))
    assert [popped(queue, 9) for _ in range(4)] == ["high", "old", "new", ""]


def test_an_event_wakes_only_pods_that_a_plugin_says_it_may_help() -> None:
    queue = SchedulingQueue({FREED: {"Fit": lambda waiting, old, new: old == "big"}})
    for name in ("a", "b"):
        queue.add(pod(name), 0)
        popped(queue, 0)
    queue.rejected("a", ["Fit"], "too big", 0)
    queue.rejected("b", ["Taints"], "taint", 0)
    assert queue.on_event(FREED, "small", None, 5) == 0
    assert queue.on_event(FREED, "big", None, 5) == 1
    assert [popped(queue, 5), popped(queue, 5)] == ["a", ""]


def test_an_event_during_the_back_off_waits_for_its_end() -> None:
    queue = SchedulingQueue({FREED: {"Fit": None}})
    queue.add(pod("a"), 0)
    for attempt, rest in enumerate([1, 2, 4, 8, 10, 10]):
        now = attempt * 100.0
        assert popped(queue, now) == "a"
        queue.rejected("a", ["Fit"], "", now)
        queue.on_event(FREED, None, None, now)
        assert queue.next_at() == now + rest
        assert popped(queue, now + rest - 0.01) == ""
        assert queue.get("a").queue == "backoff"  # type: ignore[union-attr]


def test_without_any_event_a_pod_is_tried_again_after_five_minutes() -> None:
    queue = SchedulingQueue()
    queue.add(pod("a"), 0)
    popped(queue, 0)
    queue.rejected("a", ["Fit"], "", 0)
    assert queue.next_at() == 300
    assert popped(queue, 299) == ""
    assert popped(queue, 300) == "a"


def test_a_changed_specification_is_worth_another_try_and_a_changed_status_is_not() -> None:
    queue = SchedulingQueue()
    queue.add(pod("a"), 0)
    popped(queue, 0)
    queue.rejected("a", ["Fit"], "", 0)
    queue.add(pod("a"), 5)
    assert popped(queue, 5) == ""
    queue.add(pod("a", cpu="500m"), 6)
    assert popped(queue, 6) == "a"


def test_a_pod_that_is_removed_anywhere_is_gone_everywhere() -> None:
    queue = SchedulingQueue(gate=lambda p: "gated" if p.pod.spec.schedulingGates else None)
    for name in ("active", "popped", "backoff", "waiting"):
        queue.add(pod(name), 0)
    for _ in range(4):
        popped(queue, 0)
    queue.retry("backoff", "", 0)
    queue.rejected("waiting", ["Fit"], "", 0)
    queue.retry("active", "", -100)
    queue.flush(0)
    queue.add(pod("gated", schedulingGates=[Named("g")]), 0)
    assert queue.counts == {"active": 1, "popped": 1, "backoff": 1, "unschedulable": 1, "gated": 1}
    for name in ("active", "popped", "backoff", "waiting", "gated"):
        queue.remove(name)
    assert len(queue) == 0
    assert set(queue.counts.values()) == {0}
    assert popped(queue, 1e9) == ""


def test_a_hint_that_breaks_wakes_the_pod() -> None:
    queue = SchedulingQueue({FREED: {"Fit": lambda waiting, old, new: 1 / 0}})  # type: ignore[dict-item, return-value]
    queue.add(pod("a"), 0)
    popped(queue, 0)
    queue.rejected("a", ["Fit"], "", 0)
    assert queue.on_event(FREED, None, None, 5) == 1
