"""What controllers ask of a pod: is it active, ready, available; which one to delete first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any

from services.controller_manager.actions import condition_json, rfc3339
from services.controller_manager.views.meta import Condition
from services.controller_manager.views.pod import Pod, PodStatus

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_active(pod: Pod) -> bool:
    """Counts as a replica: neither ended nor being deleted."""
    return pod.metadata.deletionTimestamp is None and pod.status.phase not in ("Succeeded", "Failed")


def is_terminal(pod: Pod) -> bool:
    """Ended, for good."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_terminating(pod: Pod) -> bool:
    """Being deleted, and its processes may still run."""
    return pod.metadata.deletionTimestamp is not None and not is_terminal(pod)


def ready_condition(status: PodStatus) -> Condition | None:
    """The Ready condition."""
    return condition(status, "Ready")


def condition(status: PodStatus, kind: str) -> Condition | None:
    """The condition of that type."""
    return next((entry for entry in status.conditions if entry.type == kind), None)


def is_ready(pod: Pod) -> bool:
    """Whether the pod says that it can serve."""
    ready = ready_condition(pod.status)
    return ready is not None and ready.status == "True"


def available_in(pod: Pod, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the pod counts as available: 0 if it does now, None if it is not even ready."""
    ready = ready_condition(pod.status)
    if ready is None or ready.status != "True":
        return None
    if not min_ready_seconds:
        return 0.0
    if ready.lastTransitionTime is None:
        return float(min_ready_seconds)
    return max(0.0, min_ready_seconds - (now - ready.lastTransitionTime).total_seconds())


def is_available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Ready for at least that long."""
    return available_in(pod, min_ready_seconds, now) == 0.0


def next_availability(pods: Iterable[Pod], min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the next ready pod becomes available; None if no pod is waiting for that."""
    if not min_ready_seconds:
        return None
    waits = [wait for pod in pods if (wait := available_in(pod, min_ready_seconds, now))]
    return min(waits, default=None)


def restarts(pod: Pod) -> int:
    """The largest restart count of its containers."""
    return max((status.restartCount for status in pod.status.containerStatuses), default=0)


def _ready_since(pod: Pod) -> datetime:
    ready = ready_condition(pod.status)
    return (ready.lastTransitionTime if ready and ready.status == "True" else None) or _EPOCH


def deletion_cost(pod: Pod) -> int:
    """What its annotation says that deleting it costs; what is not a number costs nothing."""
    text = pod.metadata.annotations.get(DELETION_COST, "0")
    try:
        cost = int(text)
    except ValueError:
        return 0
    return cost if -(2**31) <= cost < 2**31 else 0


def _age_bucket(since: datetime | None, now: datetime) -> int:
    """Ages compare by their order of magnitude, so that ties fall to chance (by uid) and not always on the youngest."""
    if since is None:
        return 0
    seconds = (now - since).total_seconds()
    return int(math.log2(seconds)) if seconds >= 1 else -1


def deletion_order(pods: Sequence[Pod], ranks: dict[str, int], now: datetime) -> list[Pod]:
    """Pods in the order in which a shrinking owner deletes them.

    Unassigned before assigned, pending before unknown before running, not ready before ready, cheap before dear,
    doubled up on a node (`ranks`: uid to how many siblings share the node) before alone, ready for a short time before
    long, restarted often before seldom, young before old.
    """

    def compare(left: Pod, right: Pod) -> int:
        def one_first(left_first: bool, right_first: bool) -> int:
            return -1 if left_first and not right_first else 1 if right_first and not left_first else 0

        if result := one_first(not left.spec.nodeName, not right.spec.nodeName):
            return result
        if result := _PHASE_ORDER.get(left.status.phase, 1) - _PHASE_ORDER.get(right.status.phase, 1):
            return result
        left_ready, right_ready = is_ready(left), is_ready(right)
        if result := one_first(not left_ready, not right_ready):
            return result
        if result := deletion_cost(left) - deletion_cost(right):
            return result
        if result := ranks.get(right.metadata.uid, 0) - ranks.get(left.metadata.uid, 0):
            return result
        if left_ready and right_ready and (result := _younger_first(_ready_since(left), _ready_since(right), now)):
            return result
        if result := restarts(right) - restarts(left):
            return result
        if result := _younger_first(left.metadata.creationTimestamp, right.metadata.creationTimestamp, now):
            return result
        return -1 if left.metadata.uid < right.metadata.uid else 1 if left.metadata.uid > right.metadata.uid else 0

    return sorted(pods, key=cmp_to_key(compare))


def _younger_first(left: datetime | None, right: datetime | None, now: datetime) -> int:
    if left == right:
        return 0
    return _age_bucket(left, now) - _age_bucket(right, now)


def disruption_conditions(pod: Pod, reason: str, message: str, now: datetime) -> list[dict[str, Any]]:
    """The pod's conditions with the one that says why the cluster, not the pod itself, ends it (Jobs judge by it)."""
    kept = [condition_json(entry) for entry in pod.status.conditions if entry.type != "DisruptionTarget"]
    mark = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return [*kept, {**mark, "lastTransitionTime": rfc3339(now)}]
