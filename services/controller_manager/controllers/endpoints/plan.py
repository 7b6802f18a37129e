"""The older form of a Service's endpoints: one object, addresses grouped by the ports that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import WARNING, Action, Create, Note, Patch, Plan, merge_diff
from services.controller_manager.controllers.endpoint_slice.desired import (
    Ports,
    address,
    families,
    is_headless,
    ports_of,
    serves,
)
from services.controller_manager.pods import is_ready
from services.controller_manager.views.cluster import Endpoints, Service
from services.controller_manager.views.pod import Pod

ADDRESSES_MAX = 1000
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
HEADLESS = "service.kubernetes.io/headless"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


def subsets(service: Service, pods: Iterable[Pod]) -> tuple[list[dict[str, Any]], bool]:
    """The subsets, in one canonical order; and whether addresses had to be left out."""
    family = families(service)[0]
    groups: dict[Ports, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    for pod in pods:
        if not serves(pod, include_terminating=service.spec.publishNotReadyAddresses):
            continue
        ip = address(pod, family)
        ports = ports_of(service, pod)
        if ip is None or (not ports and service.spec.ports):
            continue
        ready = service.spec.publishNotReadyAddresses or is_ready(pod)
        groups.setdefault(tuple(sorted(ports, key=str)), ([], []))[0 if ready else 1].append(_address(service, pod, ip))
    out = []
    room = ADDRESSES_MAX
    truncated = False
    for ports, (ready_addresses, waiting) in sorted(groups.items(), key=lambda item: str(item[0])):
        subset: dict[str, Any] = {}
        for field, addresses in (("addresses", ready_addresses), ("notReadyAddresses", waiting)):
            addresses.sort(key=lambda entry: (entry["ip"], entry["targetRef"]["uid"]))
            truncated |= len(addresses) > room
            if addresses[:room]:
                subset[field] = addresses[:room]
            room -= len(addresses[:room])
        if not subset:
            continue
        if ports:
            subset["ports"] = [_port(port) for port in ports]
        out.append(subset)
    return out, truncated


def _address(service: Service, pod: Pod, ip: str) -> dict[str, Any]:
    out: dict[str, Any] = {
        "ip": ip,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        },
    }
    if pod.spec.nodeName:
        out["nodeName"] = pod.spec.nodeName
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        out["hostname"] = pod.spec.hostname
    return out


def _port(port: tuple[str, str, int, str | None]) -> dict[str, Any]:
    name, protocol, number, application = port
    out: dict[str, Any] = {"port": number, "protocol": protocol}
    if name:
        out["name"] = name
    if application:
        out["appProtocol"] = application
    return out


def plan(service: Service, pods: Iterable[Pod], current: Endpoints | None, trigger_time: str = "") -> Plan:
    """Create the Endpoints object, or change what differs."""
    wanted, truncated = subsets(service, pods)
    labels = {name: value for name, value in service.metadata.labels.items() if name != HEADLESS}
    labels[MANAGED_BY] = MANAGER
    if is_headless(service):
        labels[HEADLESS] = ""
    annotations: dict[str, str] = {}
    if trigger_time:
        annotations[TRIGGER_TIME] = trigger_time
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    if current is None:
        metadata: dict[str, Any] = {
            "name": service.metadata.name,
            "namespace": service.metadata.namespace,
            "labels": labels,
        }
        if annotations:
            metadata["annotations"] = annotations
        obj: dict[str, Any] = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
        if wanted:
            obj["subsets"] = wanted
        text = f"Failed to create endpoint for service {service.metadata.key}: {{error}}"
        return Plan([Create(kinds.ENDPOINTS, obj, on_failure=Note(WARNING, "FailedToCreateEndpoint", text))])
    return Plan(_changes(current, wanted, labels, annotations, truncated))


def _changes(
    current: Endpoints,
    wanted: list[dict[str, Any]],
    labels: dict[str, str],
    annotations: dict[str, str],
    truncated: bool,
) -> list[Action]:
    patch: dict[str, Any] = {}
    if wanted != list(current.subsets or ()):
        patch["subsets"] = wanted or None
    metadata: dict[str, Any] = {}
    if changed := merge_diff(current.metadata.labels, labels):
        metadata["labels"] = changed
    if not truncated and OVER_CAPACITY in current.metadata.annotations:
        metadata["annotations"] = {OVER_CAPACITY: None}
    if not patch and not metadata:
        return []
    if annotations:
        metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
    if metadata:
        patch["metadata"] = metadata
    meta = current.metadata
    failure = Note(WARNING, "FailedToUpdateEndpoint", f"Failed to update endpoint {meta.key}: {{error}}")
    return [
        Patch(
            kinds.ENDPOINTS, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision, on_failure=failure
        )
    ]
