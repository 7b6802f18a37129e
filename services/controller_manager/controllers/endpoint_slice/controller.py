"""Watches Services, pods, nodes (for zones) and slices."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager import selection
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.endpoint_slice import plan as planner
from services.controller_manager.controllers.endpoint_slice import topology
from services.controller_manager.controllers.endpoint_slice.unmatched import Unmatched
from services.controller_manager.informers import SERVICE
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import EndpointSlice, Service
from services.controller_manager.views.pod import Node


class EndpointSliceController(OfKind):
    """endpointslice"""

    name = "endpointslice"
    component = "endpoint-slice-controller"
    kind = kinds.SERVICE
    workers = 4

    def watch(self) -> None:
        """Services, the pods that they select, our slices, should somebody else change them, and the nodes' zones."""
        self._zones = topology.Zones()
        self._shares: dict[str, float] | None = None
        self._unmatched = Unmatched(self.env.config.unmatched_selector_seconds)
        self.on_own(kinds.SERVICE)
        self.on(kinds.POD, selection.pod_handler(self.informers, self.add))
        self.on(kinds.ENDPOINT_SLICE, self._on_slice)
        self.on(kinds.NODE, self._on_node)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if not self._zones.set((new or old).metadata.name, new):  # type: ignore[union-attr]
            return
        before, self._shares = self._shares, self._zones.shares()
        shares_changed = before != self._shares
        # A node that comes has no pods yet, and one that goes takes its pods with it.
        moved = old is not None and new is not None and _zone(old) != _zone(new)
        for service in self.lister(kinds.SERVICE) if moved or shares_changed else ():
            if moved or topology.is_auto(service.metadata.annotations):
                self.add(service.metadata.key)

    def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for entry in (old, new):
            if entry is not None and entry.metadata.labels.get(planner.MANAGED_BY) == planner.MANAGER:
                self.add(f"{entry.metadata.namespace}/{entry.metadata.labels.get(planner.SERVICE_NAME, '')}")

    async def reconcile(self, key: str) -> Plan | None:
        """Bring the slices of one Service up to date. The slices of a deleted one are its garbage."""
        service: Service | None = self.lister(kinds.SERVICE).by_key(key)
        if (
            service is None
            or service.metadata.deletionTimestamp is not None
            or not service.spec.selector
            or service.spec.type == "ExternalName"
        ):
            self._unmatched.forget(key)
            return None
        slices = [
            entry
            for entry in self.lister(kinds.ENDPOINT_SLICE).by_index(SERVICE, key)
            if entry.metadata.labels.get(planner.MANAGED_BY) == planner.MANAGER
        ]
        pods = selection.pods_of(self.informers, service)
        time = selection.trigger_time(service, pods)
        plan = planner.plan(service, pods, slices, self._zones.by_node, time, self._shares)
        news = self._unmatched.look(key, service.spec.selector, matched=bool(pods), now=self.env.now())
        plan.actions += news.actions
        plan.wake(news.requeue_after)
        return plan


def _zone(node: Node) -> str:
    return node.metadata.labels.get(topology.ZONE_LABEL, "")
