"""A range of pod addresses for each node, cut out of the cluster's."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from machinery.api import kinds
from services.controller_manager.actions import WARNING, Emit, Patch, Plan
from services.controller_manager.views.pod import Node

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Pool:
    """The cluster's range and the prefix length of a node's share."""

    cluster: Network
    node_prefix: int

    @property
    def size(self) -> int:
        """How many nodes it is enough for."""
        return int(2 ** max(0, self.node_prefix - self.cluster.prefixlen))

    def share(self, index: int) -> Network:
        """The index-th share."""
        step = 2 ** (self.cluster.max_prefixlen - self.node_prefix)
        return ipaddress.ip_network((int(self.cluster.network_address) + index * step, self.node_prefix))

    def indices(self, network: Network) -> range:
        """The shares that a network, which somebody else may have chosen, overlaps."""
        if network.version != self.cluster.version or not network.overlaps(self.cluster):
            return range(0)
        step = 2 ** (self.cluster.max_prefixlen - self.node_prefix)
        first = max(0, (int(network.network_address) - int(self.cluster.network_address)) // step)
        last = min(self.size - 1, (int(network.broadcast_address) - int(self.cluster.network_address)) // step)
        return range(first, last + 1)


def plan(node: Node, nodes: Iterable[Node], reserved: Iterable[str], pools: list[Pool]) -> Plan:
    """Give the node its share of every pool.

    `reserved` are shares handed out moments ago that `nodes` may not show yet.
    """
    if node.spec.podCIDR or node.metadata.deletionTimestamp is not None:
        return Plan()
    networks = [ipaddress.ip_network(text, strict=False) for text in reserved]
    for other in nodes:
        networks += [ipaddress.ip_network(text, strict=False) for text in _ranges(other)]
    chosen = []
    for pool in pools:
        used = {index for network in networks for index in pool.indices(network)}
        index = next((index for index in range(pool.size) if index not in used), None)
        if index is None:
            text = f"Node {node.metadata.name} status is now: CIDRNotAvailable"
            return Plan([Emit(WARNING, "CIDRNotAvailable", text)], requeue_after=30)
        chosen.append(str(pool.share(index)))
    patch = {"spec": {"podCIDR": chosen[0], "podCIDRs": chosen}}
    return Plan(
        [Patch(kinds.NODE, "", node.metadata.name, patch, uid=node.metadata.uid, revision=node.metadata.revision)]
    )


def _ranges(node: Node) -> list[str]:
    out = []
    for text in node.spec.podCIDRs or ((node.spec.podCIDR,) if node.spec.podCIDR else ()):
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        out.append(text)
    return out
