"""Which endpoints a Service has: one for each pod that it selects, by the ports that this pod names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from services.controller_manager.controllers.endpoint_slice import topology
from services.controller_manager.pods import is_ready, is_terminal
from services.controller_manager.views.cluster import Service, ServicePort
from services.controller_manager.views.pod import Pod

# Ports as (name, protocol, number, application protocol): what all endpoints of a slice have in common.
Ports = tuple[tuple[str, str, int, str | None], ...]

# spec.trafficDistribution: PreferClose is the older name of PreferSameZone.
_NEAR = ("PreferClose", "PreferSameZone", "PreferSameNode")


def is_headless(service: Service) -> bool:
    """Has no virtual address: clients get the endpoints' own."""
    return service.spec.clusterIP == "None"


def families(service: Service) -> list[str]:
    """The address types that the Service's slices are of."""
    names = service.spec.ipFamilies or ("IPv4",)
    return list(names)


def find_port(pod: Pod, port: ServicePort) -> int | None:
    """The pod's own number of a Service port; None if the pod has no port of that name."""
    target = port.targetPort if port.targetPort not in (None, 0, "") else port.port
    if isinstance(target, int):
        return target
    sidecars = [container for container in pod.spec.initContainers if container.restartPolicy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for candidate in container.ports:
            if candidate.name == target and candidate.protocol == port.protocol:
                return candidate.containerPort
    return int(target) if target is not None and target.isdigit() else None


def ports_of(service: Service, pod: Pod) -> Ports:
    """The slice ports by which this pod serves."""
    found = []
    for port in service.spec.ports:
        number = find_port(pod, port)
        if number is not None:
            found.append((port.name, port.protocol, number, port.appProtocol))
    return tuple(found)


def serves(pod: Pod, *, include_terminating: bool) -> bool:
    """Whether the pod is an endpoint at all: it has an address, and its processes may run."""
    if is_terminal(pod) or not (pod.status.podIP or pod.status.podIPs):
        return False
    return include_terminating or pod.metadata.deletionTimestamp is None


def address(pod: Pod, family: str) -> str | None:
    """The pod's address in that family."""
    version = 6 if family == "IPv6" else 4
    candidates = [entry.ip for entry in pod.status.podIPs] or [pod.status.podIP]
    for text in candidates:
        try:
            if ipaddress.ip_address(text).version == version:
                return text
        except ValueError:
            continue
    return None


def endpoint(service: Service, pod: Pod, ip: str, zones: Mapping[str, str]) -> dict[str, Any]:
    """One entry of a slice. A pod that is being deleted is never ready, yet serves until it stops being so."""
    serving = is_ready(pod)
    terminating = pod.metadata.deletionTimestamp is not None
    out: dict[str, Any] = {
        "addresses": [ip],
        "conditions": {
            "ready": service.spec.publishNotReadyAddresses or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        },
    }
    if pod.spec.nodeName:
        out["nodeName"] = pod.spec.nodeName
        if zone := zones.get(pod.spec.nodeName):
            out["zone"] = zone
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        out["hostname"] = pod.spec.hostname
    if out["conditions"]["ready"] and (wanted := hints(service, out.get("nodeName", ""), out.get("zone", ""))):
        out["hints"] = wanted
    return out


def hints(service: Service, node: str, zone: str) -> dict[str, Any]:
    """Whom a ready endpoint is meant for, by the Service's trafficDistribution: its own zone, or its own node first.

    Proxies follow hints only where every ready endpoint has one (KEP-4444, KEP-3015).
    """
    found: dict[str, Any] = {}
    if topology.is_auto(service.metadata.annotations):  # Judged over all endpoints, not for each.
        return {}
    if service.spec.trafficDistribution in _NEAR and zone:
        found["forZones"] = [{"name": zone}]
    if service.spec.trafficDistribution == "PreferSameNode" and node:
        found["forNodes"] = [{"name": node}]
    return found


def desired(
    service: Service, pods: Iterable[Pod], zones: Mapping[str, str]
) -> dict[tuple[str, Ports], dict[str, dict[str, Any]]]:
    """(address type, ports) to the endpoints that share them, by pod uid."""
    groups: dict[tuple[str, Ports], dict[str, dict[str, Any]]] = {}
    for pod in pods:
        if not serves(pod, include_terminating=True):
            continue
        for family in families(service):
            ip = address(pod, family)
            if ip is not None:
                group = groups.setdefault((family, ports_of(service, pod)), {})
                group[pod.metadata.uid] = endpoint(service, pod, ip, zones)
    return groups
