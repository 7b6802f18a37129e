"""Watches Services, pods and Endpoints."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager import selection
from services.controller_manager.actions import Delete, Plan
from services.controller_manager.controllers.endpoints import plan as planner
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import Endpoints, Service


class EndpointsController(OfKind):
    """endpoints"""

    name = "endpoints"
    component = "endpoint-controller"
    kind = kinds.SERVICE
    workers = 4

    def watch(self) -> None:
        """Services, the pods that they select, and Endpoints, whose key is their Service's."""
        self.on_own(kinds.SERVICE)
        self.on(kinds.POD, selection.pod_handler(self.informers, self.add))
        self.on(kinds.ENDPOINTS, self._on_endpoints)

    def _on_endpoints(self, old: Endpoints | None, new: Endpoints | None) -> None:
        obj = new or old
        if obj is not None:
            self.add(obj.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """Bring the Endpoints of one Service up to date, or remove what a deleted one left."""
        service: Service | None = self.lister(kinds.SERVICE).by_key(key)
        current: Endpoints | None = self.lister(kinds.ENDPOINTS).by_key(key)
        if service is None:
            # Endpoints that people made by hand for a Service to come carry no mark of ours, and stay.
            if current is None or current.metadata.labels.get(planner.MANAGED_BY) != planner.MANAGER:
                return None
            meta = current.metadata
            return Plan([Delete(kinds.ENDPOINTS, meta.namespace, meta.name, uid=meta.uid)])
        if not service.spec.selector or service.spec.type == "ExternalName":
            return None
        if service.metadata.deletionTimestamp is not None:
            return None
        pods = selection.pods_of(self.informers, service)
        return planner.plan(service, pods, current, selection.trigger_time(service, pods))
