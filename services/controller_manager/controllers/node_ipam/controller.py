"""Gives each new node its pod addresses. One worker: two nodes must not be given the same at the same time."""

from __future__ import annotations

import ipaddress

from machinery.api import kinds
from services.controller_manager.actions import Patch, Plan
from services.controller_manager.controllers.node_ipam import plan as planner
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.pod import Node


class NodeIpamController(OfKind):
    """node-ipam"""

    name = "node-ipam"
    component = "cidrAllocator"
    kind = kinds.NODE
    workers = 1

    def watch(self) -> None:
        """Nodes."""
        # Handed out, and not yet seen in the cache.
        self._reserved: dict[str, list[str]] = {}
        config = self.env.config
        self._pools = []
        for text in config.cluster_cidrs:
            network = ipaddress.ip_network(text)
            prefix = config.node_cidr_prefix if network.version == 4 else config.node_cidr_prefix_ipv6
            self._pools.append(planner.Pool(network, max(prefix, network.prefixlen)))
        self.on_own(kinds.NODE)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        node: Node | None = self.lister(kinds.NODE).by_key(key)
        if node is None or node.spec.podCIDR:
            self._reserved.pop(key, None)
            return None
        reserved = [text for name, texts in self._reserved.items() if name != key for text in texts]
        plan = planner.plan(node, self.lister(kinds.NODE), reserved, self._pools)
        for action in plan.actions:
            if isinstance(action, Patch):
                self._reserved[key] = action.patch["spec"]["podCIDRs"]
        return plan
