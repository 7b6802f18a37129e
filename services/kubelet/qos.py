"""Quality-of-service class of a pod and what follows from its requests and limits. Pure.

Figures follow upstream: shares are milli-cpu × 1024 / 1000 with a floor of 2, quota is milli-cpu × period / 1000 with
a floor of 1 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightkube.models import core_v1

from machinery.api.quantity import Format, Quantity, parse_quantity
from services.kubelet import pod_spec

CPU_PERIOD_US = 100_000
_QUOTA_MIN_US = 1_000
_SHARES_MIN = 2
_SHARES_MAX = 262_144
_COMPUTE = ("cpu", "memory")


def _milli(value: object) -> int:
    return int(parse_quantity(str(value)).milli_value)


def _amount(value: object) -> int:
    return int(parse_quantity(str(value)).value)


def limits(container: pod_spec.AnyContainer) -> dict[str, str]:
    return (container.resources.limits if container.resources else None) or {}


def requests(container: pod_spec.AnyContainer) -> dict[str, str]:
    """The requests, each limit standing in for a request that is not given."""
    given = (container.resources.requests if container.resources else None) or {}
    return {**limits(container), **given}


def pod_level(pod: core_v1.Pod, side: str) -> dict[str, str]:
    """The `limits` or `requests` that the pod itself has (KEP-2837)."""
    return (getattr(pod.spec.resources, side) if pod.spec.resources else None) or {}


def effective_limits(pod: core_v1.Pod, container: pod_spec.AnyContainer) -> dict[str, str]:
    """The limits that hold for a container: where it has none of its own for cpu or memory, the pod's."""
    shared = {name: value for name, value in pod_level(pod, "limits").items() if name in _COMPUTE}
    return {**shared, **limits(container)}


def qos_class(pod: core_v1.Pod) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`, by regular and init containers, or by the pod's own resources if
    given.
    """
    holders = [*pod.spec.containers, *pod_spec.init_containers(pod)]
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if pod.spec.resources is not None:
        pod_limits = pod.spec.resources.limits or {}
        pairs = [({**pod_limits, **(pod.spec.resources.requests or {})}, pod_limits)]
    if not any(wanted or limit for wanted, limit in pairs):
        pairs = [(requests(c), limits(c)) for c in holders]
    any_set = False
    guaranteed = True
    for wanted, limit in pairs:
        for name in _COMPUTE:
            request_milli = _milli(wanted.get(name, 0))
            limit_milli = _milli(limit.get(name, 0))
            any_set = any_set or request_milli > 0 or limit_milli > 0
            guaranteed = guaranteed and limit_milli > 0 and request_milli == limit_milli
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


@dataclass(frozen=True, slots=True)
class CpuMemory:
    """Requests and limits as numbers; None is no limit."""

    cpu_request_milli: int = 0
    cpu_limit_milli: int | None = None
    memory_request_bytes: int = 0
    memory_limit_bytes: int | None = None

    @property
    def cpu_shares(self) -> int:
        return shares_of(self.cpu_request_milli)

    @property
    def cpu_quota_us(self) -> int:
        """The quota a period, -1 for none."""
        if not self.cpu_limit_milli:
            return -1
        return max(_QUOTA_MIN_US, self.cpu_limit_milli * CPU_PERIOD_US // 1000)


def shares_of(milli: int) -> int:
    return _SHARES_MIN if milli <= 0 else min(_SHARES_MAX, max(_SHARES_MIN, milli * 1024 // 1000))


def burstable_shares(pods: Iterable[core_v1.Pod]) -> int:
    """The cpu shares of all Burstable pods together: of the sum of their requests, as upstream."""
    return shares_of(sum(pod_requests(pod).get("cpu", 0) for pod in pods if qos_class(pod) == "Burstable"))


def weight_of_shares(shares: int) -> int:
    """cgroup v2's cpu.weight for cgroup v1's cpu.shares, as runc converts them."""
    return 1 + (shares - 2) * 9999 // 262_142


def container_resources(container: pod_spec.AnyContainer, pod: core_v1.Pod | None = None) -> CpuMemory:
    """What a container's cgroup gets, with the pod's own limits where they stand in for the container's."""
    limit = limits(container) if pod is None else effective_limits(pod, container)
    wanted = {**limit, **requests(container)}
    return CpuMemory(
        _milli(wanted.get("cpu", 0)),
        _milli(limit["cpu"]) if "cpu" in limit else None,
        _amount(wanted.get("memory", 0)),
        _amount(limit["memory"]) if "memory" in limit else None,
    )


def pod_requests(pod: core_v1.Pod) -> dict[str, int]:
    """What the pod takes of each resource, in thousandths: the larger of what runs together and each init step, and
    overhead.

    Sidecars run beside every later step (KEP-753).
    """
    total: dict[str, int] = {}
    for container in pod.spec.containers:
        _add(total, requests(container))
    beside: dict[str, int] = {}
    steps: dict[str, int] = {}
    for container in pod_spec.init_containers(pod):
        if pod_spec.is_sidecar(container):
            _add(total, requests(container))
            _add(beside, requests(container))
            _raise(steps, beside)
        else:
            step = dict(beside)
            _add(step, requests(container))
            _raise(steps, step)
    _raise(total, steps)
    if pod.spec.resources is not None:
        for name, value in {**(pod.spec.resources.limits or {}), **(pod.spec.resources.requests or {})}.items():
            total[name] = _milli(value)
    _add(total, pod.spec.overhead or {})
    return total


def pod_resources(pod: core_v1.Pod) -> CpuMemory:
    """What the pod's own cgroup gets. A limit holds only if every container has one (or the pod itself)."""
    wanted = pod_requests(pod)
    cpu_limit = _pod_limit(pod, "cpu")
    memory_limit = _pod_limit(pod, "memory")
    return CpuMemory(
        wanted.get("cpu", 0),
        cpu_limit,
        wanted.get("memory", 0) // 1000,
        None if memory_limit is None else memory_limit // 1000,
    )


def pod_resources_shown(pod: core_v1.Pod) -> dict[str, dict[str, str]]:
    """The pod's resources as its status shows them: its own, else the sum of its containers'."""
    summed: dict[str, int] = {}
    for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]:
        _add(summed, limits(container))
    for container in pod_spec.init_containers(pod):
        if not pod_spec.is_sidecar(container):
            _raise(summed, {name: _milli(value) for name, value in limits(container).items()})
    sides = {"requests": _texts(pod_requests(pod)), "limits": {**_texts(summed), **pod_level(pod, "limits")}}
    sides["requests"].update(pod_level(pod, "requests"))
    return {side: amounts for side, amounts in sides.items() if amounts}


def _texts(milli: dict[str, int]) -> dict[str, str]:
    return {
        name: str(Quantity(amount * 1_000_000, Format.DECIMAL_SI if name == "cpu" else Format.BINARY_SI))
        for name, amount in milli.items()
    }


def _pod_limit(pod: core_v1.Pod, name: str) -> int | None:
    if pod.spec.resources is not None and name in (pod.spec.resources.limits or {}):
        return _milli(pod.spec.resources.limits[name])
    running = [*pod.spec.containers, *pod_spec.sidecars(pod)]
    if not all(name in limits(c) for c in [*running, *pod_spec.init_containers(pod)]):
        return None
    total = sum(_milli(limits(c)[name]) for c in running)
    steps = [_milli(limits(c)[name]) for c in pod_spec.init_containers(pod)]
    overhead = _milli((pod.spec.overhead or {}).get(name, 0))
    return max([total, *steps]) + overhead


def oom_score_adj(pod: core_v1.Pod, container: pod_spec.AnyContainer, node_memory_bytes: int) -> int:
    """Who dies first when the node's memory runs out, as upstream orders it: BestEffort, then Burstable by request."""
    if pod.spec.priorityClassName == "system-node-critical" or pod_spec.is_static(pod):
        return -997
    quality = qos_class(pod)
    if quality == "Guaranteed":
        return -997
    if quality == "BestEffort":
        return 1000
    request = container_resources(container).memory_request_bytes
    score = 1000 - (1000 * request) // max(1, node_memory_bytes)
    return min(999, max(3, score))


def _add(total: dict[str, int], more: dict[str, str]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + _milli(value)


def _raise(total: dict[str, int], other: dict[str, int]) -> None:
    for name, value in other.items():
        total[name] = max(total.get(name, 0), value)
