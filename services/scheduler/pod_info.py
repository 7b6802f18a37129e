"""What the scheduler works out once about a pod: its requests, ports, signature."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

from machinery.api.quantity import parse_quantity
from services.scheduler.objects import Container, Pod, PodSpec, Resources

# What a container that requests nothing is taken to use when nodes are scored (not when they are filtered), as
# upstream does.
DEFAULT_CPU_MILLI = 100
DEFAULT_MEMORY_BYTES = 200 * 1024 * 1024


class HostPort(NamedTuple):
    """A port on the node that the pod takes. `ip` "0.0.0.0" takes it on every address."""

    protocol: str
    port: int
    ip: str


@lru_cache(maxsize=8192)
def amount(resource: str, text: str) -> int:
    """A quantity as the whole number in which its resource is counted: thousandths for cpu, units for the rest."""
    quantity = parse_quantity(text)
    return quantity.milli_value if resource == "cpu" else quantity.value


class PodInfo:
    """A pod and what follows from it. Immutable; made once for each state of the pod."""

    __slots__ = (
        "_signature", "claims", "cpu_scored", "host_ports", "key", "memory_scored", "pod", "priority", "requests",
        "terminating", "uid",
    )  # fmt: skip

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        metadata = pod.metadata
        self.uid = metadata.uid
        self.key = f"{metadata.namespace}/{metadata.name}"
        self.priority = pod.spec.priority or 0
        self.terminating = metadata.deletionTimestamp is not None
        self.requests = pod_requests(pod.spec)
        self.cpu_scored, self.memory_scored = _scored(pod.spec)
        self.host_ports = _host_ports(pod.spec)
        self.claims = _claims(pod)
        self._signature: bytes | None = None

    @property
    def namespace(self) -> str:
        return self.pod.metadata.namespace

    @property
    def name(self) -> str:
        return self.pod.metadata.name

    @property
    def labels(self) -> dict[str, str]:
        return self.pod.metadata.labels or {}

    @property
    def signature(self) -> bytes:
        """Equal for pods that scheduling can't tell apart: what was worked out for one holds for the other."""
        if self._signature is None:
            metadata, spec = self.pod.metadata, self.pod.spec
            owner = next((ref.uid for ref in metadata.ownerReferences or () if ref.controller), "")
            self._signature = _encode(
                (metadata.namespace, metadata.labels, owner, self.priority, spec.nodeName, spec.nodeSelector,
                 spec.affinity, spec.tolerations, spec.topologySpreadConstraints, self.requests, self.cpu_scored,
                 self.memory_scored, self.host_ports, [container.image for container in spec.containers], self.claims,
                 # Claims are had by one pod, or by few: no two pods that claim devices are alike.
                 metadata.uid if spec.resourceClaims else "")
            )  # fmt: skip
        return self._signature


_encode = msgspec.msgpack.Encoder().encode


def _add(into: dict[str, int], more: dict[str, int]) -> None:
    for resource, value in more.items():
        into[resource] = into.get(resource, 0) + value


def _raise_to(into: dict[str, int], least: dict[str, int]) -> None:
    for resource, value in least.items():
        if into.get(resource, 0) < value:
            into[resource] = value


def _requests_of(resources: Resources | None) -> dict[str, int]:
    if resources is None or not resources.requests:
        return {}
    return {resource: amount(resource, text) for resource, text in resources.requests.items()}


def _combined(spec: PodSpec, of: dict[int, dict[str, int]]) -> dict[str, int]:
    """The rule of KEP-753.

    Containers and sidecars together, or an init container with the sidecars before it, if that is more.
    """
    total: dict[str, int] = {}
    for container in spec.containers:
        _add(total, of[id(container)])
    sidecars: dict[str, int] = {}
    most: dict[str, int] = {}
    for container in spec.initContainers or ():
        needs = dict(of[id(container)])
        if container.restartPolicy == "Always":
            _add(sidecars, needs)
            _add(total, needs)
            needs = sidecars
        else:
            _add(needs, sidecars)
        _raise_to(most, needs)
    _raise_to(total, most)
    return total


def _containers(spec: PodSpec) -> list[Container]:
    return [*spec.containers, *(spec.initContainers or ())]


def pod_requests(spec: PodSpec) -> dict[str, int]:
    """What the pod needs of each resource: cpu in thousandths, others in units; "pods" is always 1."""
    total = _combined(spec, {id(container): _requests_of(container.resources) for container in _containers(spec)})
    total.update(_requests_of(spec.resources))  # Requests of the pod as a whole count instead of the sums.
    _add(total, {resource: amount(resource, text) for resource, text in (spec.overhead or {}).items()})
    total["pods"] = 1
    return total


def _scored(spec: PodSpec) -> tuple[int, int]:
    def of(container: Container) -> dict[str, int]:
        requests = _requests_of(container.resources)
        return {
            "cpu": requests.get("cpu", DEFAULT_CPU_MILLI),
            "memory": requests.get("memory", DEFAULT_MEMORY_BYTES),
        }

    total = _combined(spec, {id(container): of(container) for container in _containers(spec)})
    total.update({r: v for r, v in _requests_of(spec.resources).items() if r in total})
    _add(total, {r: amount(r, text) for r, text in (spec.overhead or {}).items() if r in total})
    return total.get("cpu", 0), total.get("memory", 0)


def _claims(pod: Pod) -> tuple[str, ...]:
    """The claims that the pod uses. Other volumes (tokens with random names among them) are nothing to scheduling."""
    out = []
    for volume in pod.spec.volumes or ():
        if volume.persistentVolumeClaim is not None:
            out.append(volume.persistentVolumeClaim.claimName)
        elif volume.ephemeral is not None:
            out.append(f"{pod.metadata.name}-{volume.name}")
    return tuple(out)


def _host_ports(spec: PodSpec) -> tuple[HostPort, ...]:
    found = set()
    for container in _containers(spec):
        if container in (spec.initContainers or ()) and container.restartPolicy != "Always":
            continue
        for port in container.ports or ():
            number = port.hostPort or (port.containerPort if spec.hostNetwork else 0)
            if number:
                found.add(HostPort(port.protocol or "TCP", number, port.hostIP or "0.0.0.0"))
    return tuple(sorted(found))
