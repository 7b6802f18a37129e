"""How much of a quota an object uses, and which quotas count it. Pure.

Upstream: pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from machinery.api.quantity import Quantity, parse
from services.apiserver.admission.limit_ranger import pod_resources
from services.apiserver.registry.pods import qos_class

Usage = dict[str, Quantity]

_ONE = parse("1")
# Resources whose plain plural is a quota name of its own, besides count/<plural>.
_PLAIN = frozenset(
    ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims")
)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
DEVICES_SUFFIX = ".deviceclass.resource.k8s.io/devices"
DEVICES_MAX = 32
"""What a claim to all devices is charged with: the most that one can get."""


def usage_of(storage: str, obj: Mapping[str, Any]) -> Usage:
    """What one object uses. `storage` names its resource: "pods", "deployments.apps"."""
    used: Usage = {f"count/{storage}": _ONE}
    if storage in _PLAIN:
        used[storage] = _ONE
    if storage == "pods":
        return _pod_usage(obj, used)
    if storage == "services":
        _add_service(obj, used)
    elif storage == "persistentvolumeclaims":
        _add_claim(obj, used)
    elif storage == "resourceclaims.resource.k8s.io":
        _add_devices(obj, used)
    return used


def _pod_usage(pod: Mapping[str, Any], used: Usage) -> Usage:
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        # It still is an object, but it holds nothing.
        return {"count/pods": _ONE}
    needed = pod_resources(pod.get("spec") or {})
    for name, value in needed["requests"].items():
        used[f"requests.{name}"] = value
        if name in _COMPUTE or name.startswith("hugepages-"):
            used[name] = value
    for name, value in needed["limits"].items():
        if name in _COMPUTE:
            used[f"limits.{name}"] = value
    return used


def _add_service(service: Mapping[str, Any], used: Usage) -> None:
    spec = service.get("spec") or {}
    ports = sum(1 for port in spec.get("ports") or () if port.get("nodePort"))
    if spec.get("type") == "LoadBalancer":
        used["services.loadbalancers"] = _ONE
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        count = len(spec.get("ports") or ()) if spec.get("allocateLoadBalancerNodePorts") is not False else ports
        used["services.nodeports"] = parse(str(count))


def _add_claim(claim: Mapping[str, Any], used: Usage) -> None:
    spec = claim.get("spec") or {}
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    names = [""]
    if spec.get("storageClassName"):
        prefix = f"{spec['storageClassName']}.storageclass.storage.k8s.io/"
        used[f"{prefix}persistentvolumeclaims"] = _ONE
        names.append(prefix)
    if wanted is not None:
        for prefix in names:
            used[f"{prefix}requests.storage"] = parse(wanted)


def _add_devices(claim: Mapping[str, Any], used: Usage) -> None:
    """The devices of each class that a claim may get: the most where it has alternatives."""
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        most: dict[str, int] = {}
        for one in request.get("firstAvailable") or [request.get("exactly") or {}]:
            name = f"{one.get('deviceClassName', '')}{DEVICES_SUFFIX}"
            count = DEVICES_MAX if one.get("allocationMode") == "All" else one.get("count", 1)
            most[name] = max(most.get(name, 0), count)
        for name, count in most.items():
            used[name] = used.get(name, parse("0")) + parse(str(count))


def missing_constraints(hard: Iterable[str], pod: Mapping[str, Any]) -> dict[str, list[str]]:
    """Resource names that a quota limits and containers leave open: name -> containers."""
    missing: dict[str, list[str]] = {}
    spec = pod.get("spec") or {}
    level = spec.get("resources") or {}
    for name in hard:
        kind, _, resource = name.partition(".")
        if name in _COMPUTE:
            kind, resource = "requests", name
        if kind not in ("requests", "limits") or resource not in _COMPUTE:
            continue
        if resource == "ephemeral-storage" or resource in (level.get(kind) or {}):
            continue
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            if resource not in ((container.get("resources") or {}).get(kind) or {}):
                missing.setdefault(name, []).append(container.get("name", ""))
    return missing


def in_scope(quota: Mapping[str, Any], storage: str, obj: Mapping[str, Any]) -> bool:
    """Whether a quota counts this object, by its scopes and scope selector."""
    spec = quota.get("spec") or {}
    conditions = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    conditions += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not conditions:
        return True
    if storage == "persistentvolumeclaims":
        return all(_claim_matches(condition, obj) for condition in conditions)
    if storage != "pods":
        return False
    return all(_pod_matches(condition, obj) for condition in conditions)


def _claim_matches(condition: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    """By its class of volume attributes: the one it has, the one it asks for, and the one it is on the way to."""
    if condition.get("scopeName") != "VolumeAttributesClass":
        return False
    status = claim.get("status") or {}
    return _selects(
        condition,
        (claim.get("spec") or {}).get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )


def _pod_matches(condition: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    spec = pod.get("spec") or {}
    scope = condition.get("scopeName")
    terminating = spec.get("activeDeadlineSeconds") is not None
    if scope in ("Terminating", "NotTerminating"):
        return terminating is (scope == "Terminating")
    if scope in ("BestEffort", "NotBestEffort"):
        return (qos_class(dict(spec)) == "BestEffort") is (scope == "BestEffort")
    if scope == "CrossNamespacePodAffinity":
        return _crosses_namespaces(spec)
    return scope == "PriorityClass" and _selects(condition, spec.get("priorityClassName"))


def _selects(condition: Mapping[str, Any], *found: str | None) -> bool:
    """Whether a condition selects an object that has these names of a scope; empty ones it does not have."""
    names, values = set(found) - {None, ""}, set(condition.get("values") or ())
    match condition.get("operator"):
        case "Exists":
            return bool(names)
        case "DoesNotExist":
            return not names
        case "In":
            return bool(names & values)
        case _:
            return not names or bool(names - values)


def _crosses_namespaces(spec: Mapping[str, Any]) -> bool:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        part = affinity.get(kind) or {}
        terms = list(part.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [
            item.get("podAffinityTerm") or {}
            for item in part.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False
