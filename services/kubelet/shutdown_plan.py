"""Which pods end when the node shuts down, in which order and how fast. Pure (KEP-2000, KEP-2712).

Groups go from the lowest priority to the highest, one after the other, each with a period of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightkube.models import core_v1

from services.kubelet.eviction import CRITICAL_PRIORITY
from services.kubelet.status import Verdict

REASON = "Terminated"
MESSAGE = "Pod was terminated in response to imminent node shutdown."
REFUSAL_REASON, REFUSAL_MESSAGE = "NodeShutdown", "Pod was rejected as the node is shutting down."
NODE_MESSAGE = "node is shutting down"


@dataclass(frozen=True, slots=True)
class Group:
    """The pods of at least this priority (and below the next group's), and how long all of them may take."""

    priority: int
    seconds: int
    pods: tuple[core_v1.Pod, ...] = ()


def periods(total_seconds: int, critical_seconds: int, by_priority: Mapping[int, int]) -> dict[int, int]:
    """Seconds by priority: those given, or the total split between ordinary pods and, last, critical ones.

    Raises ValueError where critical pods would get more than all.
    """
    if by_priority:
        return dict(sorted(by_priority.items()))
    if critical_seconds > total_seconds:
        raise ValueError(
            f"shutdown_grace_critical_seconds: {critical_seconds} is more than shutdown_grace_seconds, {total_seconds}"
        )
    if total_seconds <= 0:
        return {}
    return {0: total_seconds - critical_seconds, CRITICAL_PRIORITY: critical_seconds}


def groups(pods: Iterable[core_v1.Pod], seconds_by_priority: Mapping[int, int]) -> list[Group]:
    """The groups that have pods, in the order in which they end. A pod below the lowest belongs to the lowest."""
    order = sorted(seconds_by_priority)
    members: dict[int, list[core_v1.Pod]] = {priority: [] for priority in order}
    for pod in pods:
        own = pod.spec.priority or 0
        fitting = [priority for priority in order if priority <= own]
        if order:
            members[fitting[-1] if fitting else order[0]].append(pod)
    return [Group(p, seconds_by_priority[p], tuple(members[p])) for p in order if members[p]]


def grace_seconds(pod: core_v1.Pod, group: Group) -> int:
    """The pod's own period, but no more than its group has."""
    own = pod.spec.terminationGracePeriodSeconds
    return group.seconds if own is None else min(own, group.seconds)


def verdict() -> Verdict:
    condition = {
        "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": MESSAGE,
    }  # fmt: skip
    return Verdict(REASON, MESSAGE, condition)
