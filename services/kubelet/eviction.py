"""Eviction under pressure: which signals are beyond their thresholds, and which pod goes first. Pure.

Order, as upstream: pods that use more of the scarce resource than they requested, then lower priority, then by how far
they are above their request; of process ids, which nobody requests, lower priority, then who has most. Static and
critical pods are never chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lightkube.models import core_v1

from machinery.api.quantity import Format, Quantity, parse_quantity
from services.kubelet import pod_spec, qos

# Which condition of the node a signal raises, and which resource of a pod it is about.
SIGNALS = {
    "memory.available": ("memory", "memory"),
    "nodefs.available": ("disk", "ephemeral-storage"),
    "nodefs.inodesFree": ("disk", "inodes"),
    "imagefs.available": ("disk", "ephemeral-storage"),
    "imagefs.inodesFree": ("disk", "inodes"),
    "pid.available": ("pid", "pids"),
}
CRITICAL_PRIORITY = 2_000_000_000
# By the names that the parts above have.
CONDITIONS = {"memory": "MemoryPressure", "disk": "DiskPressure", "pid": "PIDPressure"}


@dataclass(frozen=True, slots=True)
class Signal:
    """What is available of how much."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Breach:
    """A signal beyond its threshold."""

    signal: str
    condition: str
    resource: str
    available: int
    threshold: int


@dataclass(frozen=True, slots=True)
class Use:
    """What a pod uses of one resource, and its containers of that where it is told by container."""

    total: int = 0
    containers: Mapping[str, int] = field(default_factory=dict)


NOTHING = Use()


def threshold_amount(text: str, capacity: int) -> int:
    """A threshold as a number: a quantity, or a per cent of the capacity."""
    if text.endswith("%"):
        return int(capacity * float(text[:-1]) / 100)
    return int(parse_quantity(text).value)


def breaches(signals: Mapping[str, Signal], thresholds: Mapping[str, str]) -> list[Breach]:
    """The signals below their thresholds, memory first."""
    out = []
    for name, (condition, resource) in SIGNALS.items():
        signal = signals.get(name)
        if signal is None or name not in thresholds:
            continue
        limit = threshold_amount(thresholds[name], signal.capacity)
        if signal.available < limit:
            out.append(Breach(name, condition, resource, signal.available, limit))
    return out


def is_critical(pod: core_v1.Pod) -> bool:
    return pod_spec.is_static(pod) or (pod.spec.priority or 0) >= CRITICAL_PRIORITY


def rank(pods: Iterable[core_v1.Pod], usage: Mapping[str, Use], resource: str) -> list[core_v1.Pod]:
    """The pods in the order in which to evict them, by their usage (by uid)."""

    def key(pod: core_v1.Pod) -> tuple[bool, int, int]:
        used = usage.get(pod.metadata.uid or "", NOTHING).total
        priority = pod.spec.priority or 0
        if resource == "pids":
            return False, priority, -used
        requested = qos.pod_requests(pod).get(resource, 0) // 1000
        return used <= requested, priority, requested - used

    return sorted((pod for pod in pods if not is_critical(pod)), key=key)


def message(breach: Breach, pod: core_v1.Pod, use: Use) -> str:
    """Why the pod was evicted, in the words of its status: the node's lack, then the containers above their request."""
    unit = Format.DECIMAL_SI if breach.resource in ("inodes", "pids") else Format.BINARY_SI
    text = (
        f"The node was low on resource: {breach.resource}. Threshold quantity: {_amount(breach.threshold, unit)}, "
        f"available: {_amount(breach.available, unit)}. "
    )
    for container in [*pod.spec.containers, *pod_spec.init_containers(pod)]:
        used = use.containers.get(container.name, 0)
        given = (container.resources.requests if container.resources else None) or {}
        requested = str(given.get(breach.resource, "0"))
        if used > parse_quantity(requested).value:
            text += (
                f"Container {container.name} was using {_amount(used, unit)}, request is {requested}, "
                f"has larger consumption of {breach.resource}. "
            )
    return text


def _amount(count: int, unit: Format = Format.BINARY_SI) -> str:
    return str(Quantity(count * 1_000_000_000, unit))


def over_size_limit(pod: core_v1.Pod, sizes: Mapping[str, int]) -> str:
    """The message for a pod one of whose emptyDirs (by name) is over its sizeLimit; empty if none is."""
    for volume in pod.spec.volumes or ():
        source = volume.emptyDir
        if source is None or source.sizeLimit in (None, "0", 0) or volume.name not in sizes:
            continue
        if sizes[volume.name] > parse_quantity(str(source.sizeLimit)).value:
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{source.sizeLimit}". '
    return ""
