"""How many replicas a metric asks for. The arithmetic of autoscaling/v2, as upstream documents it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from machinery.api.quantity import parse_quantity
from services.controller_manager.pods import ready_condition
from services.controller_manager.views.pod import Pod

CPU_INITIALIZATION_SECONDS = 300.0
INITIAL_READINESS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By which part of the target a metric may miss it, below and above, before the scale moves."""

    down: float = 0.1
    up: float = 0.1

    def holds(self, ratio: float) -> bool:
        """Whether use to target is near enough to one."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class NoMetric(Exception):
    """The metric can't be computed. `reason` is the condition's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Usage:
    """What one pod uses of a resource, in thousandths, over the window that ended at `at`."""

    milli: int
    at: datetime
    window_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """Replicas that a metric asks for.

    The average use (thousandths), and in per cent of the requests where that is the target.
    """

    replicas: int
    average_milli: int
    utilization: int | None = None


@dataclass(slots=True)
class _Groups:
    ready: list[str]
    unready: set[str]
    missing: set[str]
    usage: dict[str, int]


def _group(pods: Sequence[Pod], usage: Mapping[str, Usage], resource: str, now: datetime) -> _Groups:
    groups = _Groups([], set(), set(), {})
    for pod in pods:
        name = pod.metadata.name
        if pod.metadata.deletionTimestamp is not None or pod.status.phase in ("Failed", "Succeeded"):
            continue
        if pod.status.phase == "Pending":
            groups.unready.add(name)
            continue
        found = usage.get(name)
        if found is None:
            groups.missing.add(name)
            continue
        if resource == "cpu" and _still_starting(pod, found, now):
            groups.unready.add(name)
            continue
        groups.ready.append(name)
        groups.usage[name] = found.milli
    return groups


def _still_starting(pod: Pod, usage: Usage, now: datetime) -> bool:
    """A starting pod burns cpu that says nothing about its load."""
    ready = ready_condition(pod.status)
    started = pod.status.startTime
    if ready is None or started is None or ready.lastTransitionTime is None:
        return True
    if started + timedelta(seconds=CPU_INITIALIZATION_SECONDS) > now:
        early = usage.at < ready.lastTransitionTime + timedelta(seconds=usage.window_seconds)
        return ready.status == "False" or early
    return ready.status == "False" and started + timedelta(seconds=INITIAL_READINESS_SECONDS) > ready.lastTransitionTime


def by_utilization(
    current: int,
    target: int,
    resource: str,
    pods: Sequence[Pod],
    usage: Mapping[str, Usage],
    container: str,
    now: datetime,
    tolerance: Tolerance = Tolerance(),
) -> Proposal:
    """The target is a percentage of what the pods request. Raises NoMetric."""
    requests = _requests(pods, resource, container)
    groups = _group(pods, usage, resource, now)
    _need_metrics(groups, usage, resource)
    values = dict(groups.usage)
    ratio, utilization, average = _utilization(values, requests, target)
    return _propose(
        current,
        groups,
        values,
        ratio,
        # A pod of unknown use counts as just at its target when that argues for fewer, and as idle when for more.
        lambda name: requests.get(name, 0) * max(100, target) // 100,
        lambda: _utilization(values, requests, target)[0],
        average,
        utilization,
        tolerance,
    )


def by_average(
    current: int,
    target_milli: int,
    resource: str,
    pods: Sequence[Pod],
    usage: Mapping[str, Usage],
    now: datetime,
    tolerance: Tolerance = Tolerance(),
) -> Proposal:
    """The target is an average use. Raises NoMetric."""
    groups = _group(pods, usage, resource, now)
    _need_metrics(groups, usage, resource)
    values = dict(groups.usage)

    def ratio() -> float:
        return sum(values.values()) / (len(values) * target_milli)

    average = sum(values.values()) // len(values)
    return _propose(current, groups, values, ratio(), lambda name: target_milli, ratio, average, None, tolerance)


def _propose(
    current: int,
    groups: _Groups,
    values: dict[str, int],
    ratio: float,
    assumed: object,
    again: object,
    average: int,
    utilization: int | None,
    tolerance: Tolerance,
) -> Proposal:
    assert callable(assumed)
    assert callable(again)
    up_with_unready = bool(groups.unready) and ratio > 1.0
    if not up_with_unready and not groups.missing:
        if tolerance.holds(ratio):
            return Proposal(current, average, utilization)
        return Proposal(_ceil(ratio * len(groups.ready)), average, utilization)
    for name in groups.missing:
        values[name] = assumed(name) if ratio < 1.0 else 0
    if up_with_unready:
        values |= dict.fromkeys(groups.unready, 0)
    new = again()
    if tolerance.holds(new) or (ratio < 1.0) != (new < 1.0):
        return Proposal(current, average, utilization)
    wanted = _ceil(new * len(values))
    if (new < 1.0 and wanted > current) or (new > 1.0 and wanted < current):
        wanted = current
    return Proposal(wanted, average, utilization)


def _ceil(value: float) -> int:
    # 1.2 times 5 is 6.000000000000001 in floating point, and not a seventh pod.
    return math.ceil(value - 1e-9)


def by_ratio(current: int, usage_milli: int, target_milli: int, pods: Sequence[Pod], tolerance: Tolerance) -> int:
    """For one value for all pods together: as many as are ready, times how far it is from its target."""
    ratio = usage_milli / target_milli
    if current == 0:
        return _ceil(ratio)
    return current if tolerance.holds(ratio) else _ceil(ratio * sum(map(_counts, pods)))


def _counts(pod: Pod) -> bool:
    ready = ready_condition(pod.status)
    return pod.status.phase == "Running" and ready is not None and ready.status == "True"


def by_share(replicas: int, usage_milli: int, target_milli: int, tolerance: Tolerance) -> tuple[int, int]:
    """For a value that the pods share evenly: (how many so that each has the target, what each has now)."""
    wanted = replicas
    if not replicas or not tolerance.holds(usage_milli / (target_milli * replicas)):
        wanted = _ceil(usage_milli / target_milli)
    return wanted, _ceil(usage_milli / replicas) if replicas else usage_milli


def _need_metrics(groups: _Groups, usage: Mapping[str, Usage], resource: str) -> None:
    if not usage:
        text = f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
        raise NoMetric("FailedGetResourceMetric", text)
    if not groups.usage:
        raise NoMetric("FailedGetResourceMetric", "did not receive metrics for targeted pods (pods might be unready)")


def _requests(pods: Sequence[Pod], resource: str, container: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for pod in pods:
        total = 0
        for each in pod.spec.containers:
            if container and each.name != container:
                continue
            text = each.resources.requests.get(resource)
            if text is None:
                text = f"missing request for {resource} in container {each.name} of Pod {pod.metadata.name}"
                raise NoMetric("FailedGetResourceMetric", f"failed to get {resource} utilization: {text}")
            total += parse_quantity(text).milli_value
        out[pod.metadata.name] = total
    return out


def _utilization(values: Mapping[str, int], requests: Mapping[str, int], target: int) -> tuple[float, int, int]:
    total = sum(value for name, value in values.items() if name in requests)
    requested = sum(requests[name] for name in values if name in requests)
    if not requested:
        raise NoMetric("FailedGetResourceMetric", "no metrics returned matched known pods")
    utilization = total * 100 // requested
    return utilization / target, utilization, total // max(1, len(values))
