"""Watches Services, pods, nodes (for zones) and slices."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager import selection
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.endpoint_slice import plan as planner
from services.controller_manager.informers import SERVICE
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import EndpointSlice, Service
from services.controller_manager.views.pod import Node

ZONE_LABEL = "topology.kubernetes.io/zone"


class EndpointSliceController(OfKind):
    """endpointslice"""

    name = "endpointslice"
    component = "endpoint-slice-controller"
    kind = kinds.SERVICE
    workers = 4

    def watch(self) -> None:
        """Services, the pods that they select, our slices, should somebody else change them, and the nodes' zones."""
        self.on_own(kinds.SERVICE)
        self.on(kinds.POD, selection.pod_handler(self.informers, self.add))
        self.on(kinds.ENDPOINT_SLICE, self._on_slice)
        self.on(kinds.NODE, self._on_node)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        # A node that comes has no pods yet, and one that goes takes its pods with it.
        if old is not None and new is not None and _zone(old) != _zone(new):
            for service in self.lister(kinds.SERVICE):
                self.add(service.metadata.key)

    def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for entry in (old, new):
            if entry is not None and entry.metadata.labels.get(planner.MANAGED_BY) == planner.MANAGER:
                self.add(f"{entry.metadata.namespace}/{entry.metadata.labels.get(planner.SERVICE_NAME, '')}")

    async def reconcile(self, key: str) -> Plan | None:
        """Bring the slices of one Service up to date. The slices of a deleted one are its garbage."""
        service: Service | None = self.lister(kinds.SERVICE).by_key(key)
        if service is None or service.metadata.deletionTimestamp is not None or not service.spec.selector:
            return None
        if service.spec.type == "ExternalName":
            return None
        slices = [
            entry
            for entry in self.lister(kinds.ENDPOINT_SLICE).by_index(SERVICE, key)
            if entry.metadata.labels.get(planner.MANAGED_BY) == planner.MANAGER
        ]
        pods = selection.pods_of(self.informers, service)
        zones = {node.metadata.name: zone for node in self.lister(kinds.NODE) if (zone := _zone(node))}
        return planner.plan(service, pods, slices, zones, selection.trigger_time(service, pods))


def _zone(node: Node) -> str:
    return node.metadata.labels.get(ZONE_LABEL, "")
