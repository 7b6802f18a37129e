"""Hands out addresses. One worker: two Services must not be given the same at the same time."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.load_balancer import plan as planner
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import Service


class LoadBalancerController(OfKind):
    """service-lb-controller"""

    name = "service-lb-controller"
    component = "service-controller"
    kind = kinds.SERVICE
    workers = 1

    def watch(self) -> None:
        """Services. When one lets an address go, those that wait for one are looked at again."""
        self.pool = planner.Pool(self.env.config.load_balancer_addresses)
        self._reserved: dict[str, list[str]] = {}
        self.on(kinds.SERVICE, self._on_service)

    def _on_service(self, old: Service | None, new: Service | None) -> None:
        if new is not None:
            self.add(new.metadata.key)
        if old is not None and planner.addresses(old) and (new is None or not planner.addresses(new)):
            for service in self.lister(kinds.SERVICE):
                if planner.is_ours(service) and not planner.addresses(service):
                    self.add(service.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        service: Service | None = self.lister(kinds.SERVICE).by_key(key)
        self._reserved.pop(key, None)
        if service is None:
            return None
        reserved = [ip for ips in self._reserved.values() for ip in ips]
        plan = planner.plan(service, self.lister(kinds.SERVICE), reserved, self.pool)
        if ips := planner.assigned(plan):
            self._reserved[key] = ips
        return plan
