"""How a Service's slices become what they should be, with as few writes as that takes.

An endpoint stays in the slice where it is; new ones fill the room that there is; a slice that empties is deleted,
except that a Service without any endpoint keeps one empty slice, by which a reader can tell "none" from "not looked at
yet".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Create,
    Delete,
    Emit,
    Note,
    Patch,
    Plan,
    merge_diff,
)
from services.controller_manager.controllers.endpoint_slice import topology
from services.controller_manager.controllers.endpoint_slice.desired import Ports, desired, families, is_headless
from services.controller_manager.controllers.endpoint_slice.topology import Endpoint
from services.controller_manager.templates import owner_reference
from services.controller_manager.views.cluster import EndpointSlice, Service
from services.controller_manager.views.pod import Pod

ENDPOINTS_MAX = 100
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


def plan(
    service: Service,
    pods: Iterable[Pod],
    slices: Sequence[EndpointSlice],
    zones: Mapping[str, str],
    trigger_time: str = "",
    shares: Mapping[str, float] | None = None,
) -> Plan:
    """The writes for a Service with a selector.

    `zones` is node name to zone, `shares` the part of the CPU that each zone has; `trigger_time` when the last cause of
    a change happened.
    """
    groups = desired(service, pods, zones)
    said = [each for family in families(service) for each in _by_zones(service, family, groups, slices, shares)]
    for family in families(service):
        if not any(group_family == family for group_family, _ in groups):
            groups[family, ()] = {}
    return Plan([*_Reconciliation(service, trigger_time).run(groups, slices), *said])


def _by_zones(
    service: Service,
    family: str,
    groups: Mapping[tuple[str, Ports], Mapping[str, dict[str, Any]]],
    slices: Sequence[EndpointSlice],
    shares: Mapping[str, float] | None,
) -> list[Action]:
    """Share the endpoints of a family out among zones, where the Service asks for it, and say so."""
    before = {
        _uid(endpoint): hint[0]["name"]
        for entry in slices
        if entry.addressType == family
        for endpoint in entry.endpoints or ()
        if (hint := (endpoint.get("hints") or {}).get("forZones"))
    }
    if not topology.is_auto(service.metadata.annotations):
        if before and not service.spec.trafficDistribution:
            return [
                _hints_event(WARNING, "TopologyAwareHintsDisabled", "Topology Aware Hints has been disabled", family)
            ]
        return []
    ready = {
        uid: endpoint
        for (each, _), endpoints in groups.items()
        for uid, endpoint in endpoints.items()
        if each == family and endpoint["conditions"]["ready"]
    }
    known = {uid: Endpoint(each.get("zone", ""), before.get(uid, "")) for uid, each in ready.items()}
    found = topology.apportion(known, shares)
    if isinstance(found, str):
        return [_hints_event(WARNING, "TopologyAwareHintsDisabled", found, family)]
    for uid, zone in found.items():
        ready[uid]["hints"] = {"forZones": [{"name": zone}]}
    if before:
        return []
    return [_hints_event(NORMAL, "TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled", family)]


def _hints_event(severity: str, reason: str, text: str, family: str) -> Emit:
    return Emit(severity, reason, f"{text}, addressType: {family}")


class _Reconciliation:
    def __init__(self, service: Service, trigger_time: str) -> None:
        self.service = service
        self.annotations = {TRIGGER_TIME: trigger_time} if trigger_time else {}
        self.labels = slice_labels(service)
        self.actions: list[Action] = []

    def run(
        self, groups: dict[tuple[str, Ports], dict[str, dict[str, Any]]], slices: Sequence[EndpointSlice]
    ) -> list[Action]:
        by_group: dict[tuple[str, Ports], list[EndpointSlice]] = {}
        for entry in sorted(slices, key=lambda entry: entry.metadata.name):
            if entry.metadata.deletionTimestamp is None:
                by_group.setdefault((entry.addressType, _ports_of_slice(entry)), []).append(entry)
        for group, endpoints in groups.items():
            self._group(group, endpoints, by_group.pop(group, []))
        for leftover in by_group.values():
            for entry in leftover:
                self._delete(entry)
        return self.actions

    def _group(
        self, group: tuple[str, Ports], endpoints: dict[str, dict[str, Any]], slices: list[EndpointSlice]
    ) -> None:
        pending = dict(endpoints)
        contents: list[tuple[EndpointSlice, list[dict[str, Any]]]] = []
        for entry in slices:
            kept = []
            for old in entry.endpoints or ():
                new = pending.pop(_uid(old), None)
                if new is not None:
                    kept.append(new)
            contents.append((entry, kept))
        # The fullest slice that still has room takes the new ones, so that few slices change and few are needed.
        rest = list(pending.values())
        for _, kept in sorted(contents, key=lambda content: -len(content[1])):
            room = ENDPOINTS_MAX - len(kept)
            kept += rest[:room]
            rest = rest[room:] if room > 0 else rest
        keep_empty = not endpoints
        for entry, kept in contents:
            if kept or keep_empty:
                keep_empty = keep_empty and bool(kept)
                self._update(entry, kept)
            else:
                self._delete(entry)
        for start in range(0, len(rest), ENDPOINTS_MAX):
            self._create(group, rest[start : start + ENDPOINTS_MAX])
        if not endpoints and not contents:
            self._create(group, [])

    def _create(self, group: tuple[str, Ports], endpoints: list[dict[str, Any]]) -> None:
        meta = self.service.metadata
        metadata: dict[str, Any] = {
            "generateName": f"{meta.name}-",
            "namespace": meta.namespace,
            "labels": self.labels,
            "ownerReferences": [owner_reference(kinds.SERVICE, meta)],
        }
        if self.annotations:
            metadata["annotations"] = self.annotations
        obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": group[0],
            "ports": _ports_json(group[1]),
            "endpoints": endpoints,
        }
        self.actions.append(Create(kinds.ENDPOINT_SLICE, obj, on_failure=self._failure()))

    def _update(self, entry: EndpointSlice, endpoints: list[dict[str, Any]]) -> None:
        patch: dict[str, Any] = {}
        if endpoints != list(entry.endpoints or ()):
            patch["endpoints"] = endpoints
        metadata: dict[str, Any] = {}
        if labels := merge_diff(entry.metadata.labels, self.labels):
            metadata["labels"] = labels
        if not patch and not metadata:
            return
        if self.annotations and self.annotations.items() - entry.metadata.annotations.items():
            metadata["annotations"] = self.annotations
        if metadata:
            patch["metadata"] = metadata
        meta = entry.metadata
        self.actions.append(
            Patch(
                kinds.ENDPOINT_SLICE, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision,
                on_failure=self._failure(),
            )
        )  # fmt: skip

    def _delete(self, entry: EndpointSlice) -> None:
        meta = entry.metadata
        self.actions.append(
            Delete(kinds.ENDPOINT_SLICE, meta.namespace, meta.name, uid=meta.uid, on_failure=self._failure())
        )

    def _failure(self) -> Note:
        text = f"Error updating Endpoint Slices for Service {self.service.metadata.key}: {{error}}"
        return Note(WARNING, "FailedToUpdateEndpointSlices", text)


def slice_labels(service: Service) -> dict[str, str]:
    """The Service's own labels, and the three by which slices are found."""
    reserved = (HEADLESS, SERVICE_NAME, MANAGED_BY)
    labels = {name: value for name, value in service.metadata.labels.items() if name not in reserved}
    labels |= {SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS] = ""
    return labels


def _uid(endpoint: dict[str, Any]) -> str:
    return str((endpoint.get("targetRef") or {}).get("uid", ""))


def _ports_of_slice(entry: EndpointSlice) -> Ports:
    return tuple(
        (port.get("name") or "", port.get("protocol") or "TCP", port.get("port") or 0, port.get("appProtocol"))
        for port in entry.ports or ()
    )


def _ports_json(ports: Ports) -> list[dict[str, Any]]:
    out = []
    for name, protocol, number, application in ports:
        entry: dict[str, Any] = {"name": name, "protocol": protocol, "port": number}
        if application:
            entry["appProtocol"] = application
        out.append(entry)
    return out
