"""Whether this node takes a pod that was bound to it: the last check before anything is made. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lightkube.models import core_v1

from machinery.api.quantity import parse_quantity
from services.kubelet import eviction, pod_spec, qos

_MEMORY_TAINT = "node.kubernetes.io/memory-pressure"


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    message: str


# Sysctls that belong to the pod's own namespaces and can't hurt others.
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


def refuse(
    pod: core_v1.Pod,
    running: Iterable[core_v1.Pod],
    allocatable: Mapping[str, str],
    max_pods: int,
    unsafe_sysctls: Iterable[str] = (),
    node_labels: Mapping[str, str] | None = None,
    pressures: Collection[str] = (),
) -> Refusal | None:
    """Why the pod can't run here: pressure, a sysctl that is not allowed, another operating system, too many pods, or
    not enough of a resource left.

    `pressures` are what the node lacks, as `eviction.CONDITIONS` names it. Critical pods are not refused for lack of
    room.
    """
    if pressures and pressed(pod, pressures):
        names = " ".join(eviction.CONDITIONS[name] for name in pressures)
        return Refusal("Evicted", f"The node had condition: [{names}]. ")
    forbidden = forbidden_sysctl(pod, unsafe_sysctls)
    if forbidden:
        return Refusal("SysctlForbidden", f'forbidden sysctl: "{forbidden}" not allowlisted')
    if (pod.metadata.labels or {}).get("kubernetes.io/os", "linux") != "linux":
        message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
        return Refusal("PodOSSelectorNodeLabelDoesNotMatch", message)
    if pod.spec.os is not None and pod.spec.os.name != "linux":
        return Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    if pod.spec.priorityClassName == "system-node-critical" or pod_spec.is_static(pod):
        return None
    others = [other for other in running if other.metadata.uid != pod.metadata.uid]
    if node_labels is not None and not selects(pod, node_labels):
        return Refusal(
            "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        )
    taken = {port for other in others for port in host_ports(other)}
    if any(collide(port, other) for port in host_ports(pod) for other in taken):
        return Refusal(
            "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        )
    if len(others) >= max_pods:
        message = f"Node didn't have enough resource: pods, requested: 1, used: {len(others)}, capacity: {max_pods}"
        return Refusal("OutOfpods", message)
    wanted = qos.pod_requests(pod)
    used: dict[str, int] = {}
    for other in others:
        for name, milli in qos.pod_requests(other).items():
            used[name] = used.get(name, 0) + milli
    for name, milli in wanted.items():
        # An extended resource that this node does not list is the cluster's own business, or the node's object is older
        # than the scheduler's.
        if milli <= 0 or (name not in allocatable and is_extended(name)):
            continue
        capacity = parse_quantity(str(allocatable.get(name, "0"))).milli_value
        if used.get(name, 0) + milli > capacity and allocatable:
            unit = 1 if name == "cpu" else 1000
            message = (
                f"Node didn't have enough resource: {name}, requested: {milli // unit}, "
                f"used: {used.get(name, 0) // unit}, capacity: {capacity // unit}"
            )
            return Refusal(f"OutOf{name}", message)
    return None


def pressed(pod: core_v1.Pod, pressures: Collection[str]) -> bool:
    """Whether the pod may not start under this pressure.

    Where it is memory alone, only BestEffort pods may not that do not tolerate it.
    """
    if eviction.is_critical(pod):
        return False
    if set(pressures) == {"memory"}:
        return qos.qos_class(pod) == "BestEffort" and not any(map(_tolerates_memory, pod.spec.tolerations or ()))
    return True


def _tolerates_memory(toleration: core_v1.Toleration) -> bool:
    if toleration.effect not in (None, "", "NoSchedule"):
        return False
    if toleration.operator == "Exists":
        return toleration.key in (None, "", _MEMORY_TAINT)
    return toleration.key == _MEMORY_TAINT and not toleration.value


def is_extended(name: str) -> bool:
    """Whether a resource's name has a domain that is not Kubernetes' own."""
    domain, slash, _ = name.rpartition("/")
    return bool(slash) and domain != "kubernetes.io"


def forbidden_sysctl(pod: core_v1.Pod, unsafe_allowed: Iterable[str]) -> str:
    """The first sysctl that the pod may not set here.

    Empty if it may set all. `unsafe_allowed` takes names and `prefix*`.
    """
    allowed = tuple(unsafe_allowed)
    security = pod.spec.securityContext
    for sysctl in (security.sysctls if security else None) or ():
        name = sysctl.name.replace("/", ".")
        known = any(name == a or (a.endswith("*") and name.startswith(a[:-1])) for a in allowed)
        if name not in SAFE_SYSCTLS and not known:
            return sysctl.name
    return ""


Port = tuple[str, str, int]


def host_ports(pod: core_v1.Pod) -> set[Port]:
    """(address, protocol, port) of every port of the node that the pod takes."""
    return {
        (port.hostIP or "0.0.0.0", port.protocol or "TCP", port.hostPort)
        for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]
        for port in container.ports or ()
        if port.hostPort
    }


def collide(one: Port, other: Port) -> bool:
    """Whether two pods can't both have these: the same port and protocol, on the same address or on any."""
    everywhere = "0.0.0.0"
    return one[1:] == other[1:] and (one[0] == other[0] or everywhere in (one[0], other[0]))


def selects(pod: core_v1.Pod, labels: Mapping[str, str]) -> bool:
    """Whether the pod's nodeSelector and required node affinity choose a node with these labels."""
    if any(labels.get(key) != value for key, value in (pod.spec.nodeSelector or {}).items()):
        return False
    affinity = pod.spec.affinity.nodeAffinity if pod.spec.affinity else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity else None
    if required is None:
        return True
    name = {"metadata.name": labels.get("kubernetes.io/hostname", "")}
    return any(
        all(_matches(e, labels) for e in term.matchExpressions or ())
        and all(_matches(e, name) for e in term.matchFields or ())
        for term in required.nodeSelectorTerms
        if term.matchExpressions or term.matchFields
    )


def _matches(requirement: core_v1.NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value, wanted = labels.get(requirement.key), requirement.values or []
    match requirement.operator:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    try:
        difference = int(value or "") - int(wanted[0])
    except (ValueError, IndexError):
        return False
    return difference > 0 if requirement.operator == "Gt" else difference < 0
