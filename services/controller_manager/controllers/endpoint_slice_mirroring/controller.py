"""Endpoints that people wrote themselves, for a Service without a selector, repeated as slices.

Who reads slices sees them too.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Action, Create, Delete, Patch, Plan, merge_diff
from services.controller_manager.informers import SERVICE
from services.controller_manager.reconciler import OfKind
from services.controller_manager.templates import owner_reference
from services.controller_manager.views.cluster import Endpoints, EndpointSlice, Service

MANAGER = "endpointslicemirroring-controller.k8s.io"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_SERVICE_NAME = "kubernetes.io/service-name"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_ADDRESSES_MAX = 1000


def should_mirror(endpoints: Endpoints, service: Service | None) -> bool:
    """Whether these Endpoints are somebody's own, and wanted as slices."""
    if service is None or service.spec.selector or service.metadata.deletionTimestamp is not None:
        return False
    return endpoints.metadata.labels.get(_SKIP) != "true" and _LEADER not in endpoints.metadata.annotations


def desired(endpoints: Endpoints) -> list[dict[str, Any]]:
    """Slices by what differs: `addressType`, `ports` and `endpoints`. One for each subset and address family."""
    out = []
    left = _ADDRESSES_MAX
    for subset in endpoints.subsets or ():
        families: dict[str, list[dict[str, Any]]] = {}
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for entry in subset.get(field) or ():
                try:
                    family = f"IPv{ipaddress.ip_address(entry['ip']).version}"
                except (ValueError, KeyError):
                    continue
                if left > 0:
                    left -= 1
                    families.setdefault(family, []).append(_endpoint(entry, ready=ready))
        ports = [
            {"name": "", "protocol": "TCP", **{k: v for k, v in port.items() if v is not None}}
            for port in subset.get("ports") or ()
        ]
        out += [
            {"addressType": family, "ports": ports, "endpoints": found} for family, found in sorted(families.items())
        ]
    return out


def _endpoint(entry: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"addresses": [entry["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName", "targetRef"):
        if entry.get(field):
            out[field] = entry[field]
    return out


def plan(endpoints: Endpoints | None, service: Service | None, slices: list[EndpointSlice]) -> Plan:
    """Keep slices that are right, change one of the same ports, create and delete the rest."""
    wanted = desired(endpoints) if endpoints is not None and should_mirror(endpoints, service) else []
    actions: list[Action] = []
    free = sorted(slices, key=lambda entry: entry.metadata.name)
    for target in wanted:
        assert endpoints is not None
        labels = {k: v for k, v in endpoints.metadata.labels.items() if k != _SKIP}
        labels |= {_SERVICE_NAME: endpoints.metadata.name, _MANAGED_BY: MANAGER}
        match = next((entry for entry in free if _fits(entry, target)), None)
        if match is None:
            actions.append(Create(kinds.ENDPOINT_SLICE, _new(endpoints, target, labels)))
            continue
        free.remove(match)
        patch: dict[str, Any] = {}
        if list(match.endpoints or ()) != target["endpoints"]:
            patch["endpoints"] = target["endpoints"]
        if changed := merge_diff(match.metadata.labels, labels):
            patch["metadata"] = {"labels": changed}
        if patch:
            meta = match.metadata
            actions.append(Patch(kinds.ENDPOINT_SLICE, meta.namespace, meta.name, patch, uid=meta.uid))
    for entry in free:
        meta = entry.metadata
        actions.append(Delete(kinds.ENDPOINT_SLICE, meta.namespace, meta.name, uid=meta.uid))
    return Plan(actions)


def _fits(entry: EndpointSlice, target: dict[str, Any]) -> bool:
    ports = [{"name": "", **port} for port in entry.ports or ()]
    return bool(entry.addressType == target["addressType"] and ports == target["ports"])


def _new(endpoints: Endpoints, target: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    meta = endpoints.metadata
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{meta.name}-",
            "namespace": meta.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(kinds.ENDPOINTS, meta)],
        },
        **target,
    }


class EndpointSliceMirroringController(OfKind):
    """endpointslice-mirroring"""

    name = "endpointslice-mirroring"
    kind = kinds.ENDPOINTS

    def watch(self) -> None:
        """Endpoints and Services, and our own slices, should somebody else change them."""
        self.on_own(kinds.ENDPOINTS)
        self.on_own(kinds.SERVICE)
        self.on(kinds.ENDPOINT_SLICE, self._on_slice)

    def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        entry = new or old
        if entry is not None and entry.metadata.labels.get(_MANAGED_BY) == MANAGER:
            self.add(f"{entry.metadata.namespace}/{entry.metadata.labels.get(_SERVICE_NAME, '')}")

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        slices = [
            entry
            for entry in self.lister(kinds.ENDPOINT_SLICE).by_index(SERVICE, key)
            if entry.metadata.labels.get(_MANAGED_BY) == MANAGER
        ]
        return plan(self.lister(kinds.ENDPOINTS).by_key(key), self.lister(kinds.SERVICE).by_key(key), slices)
