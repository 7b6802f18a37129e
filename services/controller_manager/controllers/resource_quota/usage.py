"""What a namespace uses of what a ResourceQuota limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from machinery.api.quantity import Quantity, parse_quantity
from services.controller_manager.pods import is_terminal
from services.controller_manager.views.cluster import PersistentVolumeClaim, QuotaSpec, Service
from services.controller_manager.views.devices import ResourceClaim
from services.controller_manager.views.pod import Container, Pod

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
# Resources that have had a name of their own since before "count/".
COUNTED = (
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
)
DEVICES_SUFFIX = ".deviceclass.resource.k8s.io/devices"
DEVICES_MAX = 32
"""What a claim to all devices is counted as: the most that one can get."""
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the namespace. `count` answers how many objects of "plural" or "plural.group" there are."""

    pods: Sequence[Pod]
    services: Sequence[Service]
    claims: Sequence[PersistentVolumeClaim]
    count: Callable[[str], int]
    devices: Sequence[ResourceClaim] = ()


def used(spec: QuotaSpec, contents: Contents) -> dict[str, str]:
    """The use of every resource that `spec.hard` names."""
    alive = [pod for pod in contents.pods if not is_terminal(pod) and in_scope(spec, pod)]
    requirements = _requirements(spec)
    if requirements:
        claims = [claim for claim in contents.claims if all(_claim_matches(entry, claim) for entry in requirements)]
        counts = {"persistentvolumeclaims": len(claims), "pods": len(alive)}
        # What has no scopes of its own, a quota with scopes does not count.
        contents = Contents(alive, (), claims, lambda resource: counts.get(resource, 0))
    return {name: str(_one(name, alive, contents)) for name in spec.hard}


def _one(name: str, alive: Sequence[Pod], contents: Contents) -> Quantity:
    if name == "pods":
        return parse_quantity(str(len(alive)))
    if name.startswith("count/"):
        return parse_quantity(str(contents.count(name.removeprefix("count/"))))
    if name in COUNTED:
        return parse_quantity(str(contents.count(name)))
    if name == "services.nodeports":
        return parse_quantity(str(sum(_node_ports(service) for service in contents.services)))
    if name == "services.loadbalancers":
        return parse_quantity(str(sum(service.spec.type == "LoadBalancer" for service in contents.services)))
    if _CLASS_SUFFIX in name:
        storage_class, _, what = name.partition(_CLASS_SUFFIX)
        claims = [claim for claim in contents.claims if claim.spec.storageClassName == storage_class]
        return _storage(claims) if what == "requests.storage" else parse_quantity(str(len(claims)))
    if name.endswith(DEVICES_SUFFIX):
        device_class = name.removesuffix(DEVICES_SUFFIX)
        return parse_quantity(str(sum(_devices(claim, device_class) for claim in contents.devices)))
    if name == "requests.storage":
        return _storage(contents.claims)
    return _compute(name, alive)


def _storage(claims: Sequence[PersistentVolumeClaim]) -> Quantity:
    return _sum(claim.spec.resources.requests.get("storage", "0") for claim in claims)


def _devices(claim: ResourceClaim, device_class: str) -> int:
    """How many devices of a class a claim may get: the most where it has alternatives."""
    total = 0
    for request in (claim.spec.get("devices") or {}).get("requests") or ():
        alternatives = request.get("firstAvailable") or [request.get("exactly") or {}]
        total += max(
            (
                DEVICES_MAX if one.get("allocationMode") == "All" else one.get("count", 1)
                for one in alternatives
                if one.get("deviceClassName") == device_class
            ),
            default=0,
        )
    return total


def _node_ports(service: Service) -> int:
    return len(service.spec.ports) if service.spec.type in ("NodePort", "LoadBalancer") else 0


def _compute(name: str, pods: Sequence[Pod]) -> Quantity:
    section, _, resource = name.partition(".") if name.startswith(("requests.", "limits.")) else ("requests", "", name)
    total = parse_quantity("0")
    for pod in pods:
        total = total + pod_resource(pod, section, resource)
    return total


def pod_resource(pod: Pod, section: str, resource: str) -> Quantity:
    """What a pod requests (or is limited to).

    Its containers and sidecars together, or its largest init step if that is more.
    """

    def of(container: Container) -> Quantity:
        values: Mapping[str, str] = getattr(container.resources, section)
        return parse_quantity(values.get(resource, "0"))

    total = parse_quantity("0")
    for container in pod.spec.containers:
        total = total + of(container)
    sidecars = parse_quantity("0")
    peak = parse_quantity("0")
    for container in pod.spec.initContainers:
        if container.restartPolicy == "Always":
            sidecars = sidecars + of(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + of(container))
    return max(total + sidecars, peak) + parse_quantity(pod.spec.overhead.get(resource, "0"))


def _sum(texts: Any) -> Quantity:
    total = parse_quantity("0")
    for text in texts:
        total = total + parse_quantity(text)
    return total


# --- scopes -----------------------------------------------------------------------------------------------------------


def in_scope(spec: QuotaSpec, pod: Pod) -> bool:
    """Whether the quota is about this pod."""
    return all(_matches(entry, pod) for entry in _requirements(spec))


def _requirements(spec: QuotaSpec) -> list[Mapping[str, Any]]:
    requirements: list[Mapping[str, Any]] = [{"scopeName": name, "operator": "Exists"} for name in spec.scopes]
    return requirements + list((spec.scopeSelector or {}).get("matchExpressions") or ())


def _claim_matches(entry: Mapping[str, Any], claim: PersistentVolumeClaim) -> bool:
    """Whether one of the claim's classes of volume attributes (had, wanted, on the way to) is meant."""
    if entry.get("scopeName") != "VolumeAttributesClass":
        return False
    coming = claim.status.get("modifyVolumeStatus") or {}
    names = {
        claim.spec.volumeAttributesClassName,
        claim.status.get("currentVolumeAttributesClassName"),
        coming.get("targetVolumeAttributesClassName"),
    } - {None, ""}
    values = set(entry.get("values") or ())
    return {
        "In": bool(names & values),
        "NotIn": not names or bool(names - values),
        "Exists": bool(names),
        "DoesNotExist": not names,
    }.get(str(entry.get("operator")), False)


def _matches(entry: Mapping[str, Any], pod: Pod) -> bool:
    scope = entry.get("scopeName")
    if scope == "PriorityClass":
        name, values = pod.spec.priorityClassName, entry.get("values") or ()
        return {
            "In": name in values,
            "NotIn": name not in values,
            "Exists": bool(name),
            "DoesNotExist": not name,
        }.get(str(entry.get("operator")), False)
    best_effort = not any(
        container.resources.requests or container.resources.limits
        for container in (*pod.spec.containers, *pod.spec.initContainers)
    )
    return {
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
        "Terminating": pod.spec.activeDeadlineSeconds is not None,
        "NotTerminating": pod.spec.activeDeadlineSeconds is None,
        "CrossNamespacePodAffinity": _reaches_out(pod),
    }.get(str(scope), False)


def _reaches_out(pod: Pod) -> bool:
    """Whether the pod's affinity looks at pods of other namespaces."""
    for name in ("podAffinity", "podAntiAffinity"):
        section = (pod.spec.affinity or {}).get(name) or {}
        terms = list(section.get("requiredDuringSchedulingIgnoredDuringExecution") or [])
        terms += [
            entry.get("podAffinityTerm") or {}
            for entry in section.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        ]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False
