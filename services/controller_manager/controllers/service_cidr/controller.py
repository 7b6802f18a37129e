"""Watches ServiceCIDRs and the IPAddresses that Services hold."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.service_cidr import plan as planner
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.addresses import Address, ServiceCidr
from services.controller_manager.views.meta import Meta
from services.controller_manager.views.pod import Node


class ServiceCidrController(OfKind):
    """service-cidr-controller"""

    name = "service-cidr-controller"
    component = "service-cidr-controller"
    kind = kinds.SERVICE_CIDR
    workers = 1

    def watch(self) -> None:
        """Ranges; and addresses that come and go, of which one may hold up a deletion."""
        self.on(self.kind, self._on_cidr)
        self.on(kinds.IP_ADDRESS, self._on_address)
        self.on(kinds.NODE, self._on_node)
        self._pods = [ipaddress.ip_network(text) for text in self.env.config.cluster_cidrs]

    def _on_cidr(self, old: ServiceCidr | None, new: ServiceCidr | None) -> None:
        cidr = new or old
        assert cidr is not None
        self.add(cidr.metadata.key)
        if old is None or new is None:
            for other in self.lister(self.kind):
                if other.overlaps(cidr):
                    self.add(other.metadata.key)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        # A node's heartbeat is no news.
        if new is not None and (old is None or old.status.addresses != new.status.addresses):
            for cidr in self.lister(self.kind):
                if planner.overlaps(cidr, (), [new]):
                    self.add(cidr.metadata.key)

    def _on_address(self, old: Any, new: Any) -> None:
        if old is not None and new is not None:
            return
        address = _parse((new or old).metadata)
        for cidr in self.lister(self.kind) if address is not None else ():
            if cidr.metadata.deletionTimestamp is not None and cidr.contains(address):
                self.add(cidr.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        cidr: ServiceCidr | None = self.lister(self.kind).by_key(key)
        if cidr is None:
            return None
        others = [each for each in self.lister(self.kind) if each.metadata.uid != cidr.metadata.uid]
        parsed = (_parse(each.metadata) for each in self.lister(kinds.IP_ADDRESS))
        plan = planner.plan(cidr, others, [each for each in parsed if each is not None], self.env.now())
        if cidr.metadata.deletionTimestamp is None:
            plan.actions += planner.overlaps(cidr, self._pods, self.lister(kinds.NODE))
        return plan


def _parse(meta: Meta) -> Address | None:
    """The address that an IPAddress of the apiserver's own allocator stands for."""
    key, value = planner.MANAGED_BY
    if meta.labels.get(key) == value:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(meta.name)
    return None
