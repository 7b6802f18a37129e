"""Resizing a running pod in place (KEP-1287).

What changed, whether it fits, and whether the container has to restart. Pure.
"""

from __future__ import annotations

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
