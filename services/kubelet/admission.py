"""Whether this node takes a pod that was bound to it: the last check before anything is made. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightkube.models import core_v1

from machinery.api.quantity import parse_quantity
from services.kubelet import pod_spec, qos


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    message: str


def refuse(
    pod: core_v1.Pod, running: Iterable[core_v1.Pod], allocatable: Mapping[str, str], max_pods: int
) -> Refusal | None:
    """Why the pod can't run here: too many pods, or not enough of a resource left. Critical pods are always taken."""
    if pod.spec.priorityClassName == "system-node-critical" or pod_spec.is_static(pod):
        return None
    others = [other for other in running if other.metadata.uid != pod.metadata.uid]
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


def is_extended(name: str) -> bool:
    """Whether a resource's name has a domain that is not Kubernetes' own."""
    domain, slash, _ = name.rpartition("/")
    return bool(slash) and domain != "kubernetes.io"
