"""Resizing a running pod in place (KEP-1287).

What changed, whether it fits, and whether the container has to restart. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightkube.models import core_v1

from machinery.api.quantity import parse_quantity
from services.kubelet import pod_spec, qos

Json = dict[str, Any]
_RESIZABLE = ("cpu", "memory")


@dataclass(frozen=True, slots=True)
class Pending:
    """Why a resize is not done yet: `Deferred` may fit later, `Infeasible` never will on this node."""

    reason: str
    message: str
    condition: str = "PodResizePending"


def resources_of(container: pod_spec.AnyContainer) -> Json:
    """The container's resources as its status shows them once they are applied."""
    out: Json = {}
    limits, requests = qos.limits(container), qos.requests(container)
    if limits:
        out["limits"] = dict(limits)
    if requests:
        out["requests"] = dict(requests)
    return out


def changed(container: pod_spec.AnyContainer, applied: Json) -> set[str]:
    """Which of cpu and memory differ from what was applied, by value."""
    wanted = resources_of(container)
    return {
        name
        for name in _RESIZABLE
        for side in ("limits", "requests")
        if _value(wanted, side, name) != _value(applied, side, name)
    }


def pod_level_changed(pod: core_v1.Pod, applied: Json) -> set[str]:
    """Which of the pod's own cpu and memory differ from what was applied. `applied` is `qos.pod_resources_shown`."""
    wanted = qos.pod_resources_shown(pod)
    named = {*qos.pod_level(pod, "limits"), *qos.pod_level(pod, "requests")}
    return {
        name
        for name in _RESIZABLE
        for side in ("limits", "requests")
        if name in named and _value(wanted, side, name) != _value(applied, side, name)
    }


def inherits(container: pod_spec.AnyContainer, names: Iterable[str]) -> bool:
    """Whether the container has the pod's limit in place of its own for one of these."""
    return any(name not in qos.limits(container) for name in names)


def _value(resources: Json, side: str, name: str) -> int | None:
    text = (resources.get(side) or {}).get(name)
    return None if text is None else parse_quantity(str(text)).milli_value


def needs_restart(container: pod_spec.AnyContainer, names: Iterable[str]) -> bool:
    """Whether the container's resizePolicy asks for a restart when one of these changes."""
    wanted = set(names)
    policies = getattr(container, "resizePolicy", None) or ()
    return any(p.restartPolicy == "RestartContainer" and p.resourceName in wanted for p in policies)


def obstacle(pod: core_v1.Pod, running: Iterable[core_v1.Pod], allocatable: Mapping[str, str]) -> Pending | None:
    """Why the new sizes can't be given now; None if they can."""
    wanted = qos.pod_requests(pod)
    used: dict[str, int] = {}
    for other in running:
        if other.metadata.uid != pod.metadata.uid:
            for name, milli in qos.pod_requests(other).items():
                used[name] = used.get(name, 0) + milli
    for name in _RESIZABLE:
        if name not in allocatable:
            continue
        capacity = parse_quantity(str(allocatable[name])).milli_value
        unit = 1 if name == "cpu" else 1000
        if wanted.get(name, 0) > capacity:
            what = f"{name}, requested: {wanted[name] // unit}, capacity: {capacity // unit}"
            return Pending("Infeasible", f"Node didn't have enough capacity: {what}")
        if wanted.get(name, 0) + used.get(name, 0) > capacity:
            text = (
                f"Node didn't have enough resource: {name}, requested: {wanted[name] // unit}, "
                f"used: {used[name] // unit}, capacity: {capacity // unit}"
            )
            return Pending("Deferred", text)
    return None


def memory_obstacle(pod: core_v1.Pod, usage: Mapping[str, int]) -> Pending | None:
    """Why limits can't shrink now: something uses more than its new limit (`usage` in bytes by running container).

    cgroup v1 refuses such a limit; v2 would kill for it.
    """
    for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]:
        limit = qos.container_resources(container, pod).memory_limit_bytes
        used = usage.get(container.name, 0)
        if limit and used >= limit:
            return _too_small(f"container {container.name}", limit, used)
    limit, used = qos.pod_resources(pod).memory_limit_bytes, sum(usage.values())
    return _too_small("pod", limit, used) if limit and used >= limit else None


def _too_small(what: str, limit: int, used: int) -> Pending:
    text = f"{what}: attempting to set memory limit ({limit}) below current usage ({used})"
    return Pending("Error", text, "PodResizeInProgress")


def error_message(pod: core_v1.Pod, problem: str) -> str:
    return f"Pod resize error: {_told(pod, problem)}"


def completed_message(pod: core_v1.Pod) -> str:
    """The words of a resize's last event: what every container and the pod have now, as upstream tells it."""
    return f"Pod resize completed: {_told(pod)}"


def started_message(pod: core_v1.Pod) -> str:
    return f"Pod resize started: {_told(pod)}"


def _told(pod: core_v1.Pod, problem: str = "") -> str:
    def entry(container: pod_spec.AnyContainer) -> Json:
        return {"name": container.name, "resources": resources_of(container)}

    sidecars = [entry(c) for c in pod_spec.init_containers(pod)]
    told: Json = {"initContainers": sidecars} if sidecars else {}
    told["containers"] = [entry(c) for c in pod.spec.containers]
    if pod.metadata.generation:
        told["generation"] = pod.metadata.generation
    if problem:
        told["error"] = problem
    return json.dumps(told, separators=(",", ":"))
