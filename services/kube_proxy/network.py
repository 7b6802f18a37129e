"""The pod network between nodes: one route a node, and the way out of the cluster.

A pure plan (`routes_for`, `way_out`) and a thin shell (`PodNetwork`). Nodes on one segment reach each other's pods by a
host route through the other node's address. With another CNI plugin that does this itself, switch it off (`pod_network:
false`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

import structlog
from lightkube.models import core_v1

from services.kube_proxy.nft import Nft, NftError

TABLE = "ip cutaway-pod-network"
# Marks routes as ours (like `proto bird` for bird), so that we remove only our own.
ROUTE_PROTOCOL = 0x63
log = structlog.get_logger()


def routes_for(nodes: Iterable[core_v1.Node], own_name: str) -> dict[str, str]:
    """Pod range -> address of the node that has it, for every other node."""
    routes: dict[str, str] = {}
    for node in nodes:
        if node.metadata is None or node.metadata.name == own_name or node.spec is None or not node.spec.podCIDR:
            continue
        address = internal_ip(node)
        if address:
            routes[str(ipaddress.ip_network(node.spec.podCIDR, strict=False))] = address
    return routes


def internal_ip(node: core_v1.Node) -> str:
    """The node's first IPv4 InternalIP; empty if it has not reported one."""
    addresses = (node.status.addresses if node.status else None) or []
    return next((a.address for a in addresses if a.type == "InternalIP" and "." in a.address), "")


def way_out(cluster_cidr: str) -> str:
    """The nft table that lets pods' packets leave the cluster with the node's address."""
    return f"""
table {TABLE} {{}}
delete table {TABLE}
table {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat + 10; policy accept;
    ip saddr {cluster_cidr} ip daddr != {cluster_cidr} masquerade fully-random
  }}
}}
"""


class PodNetwork:
    """Keeps this node's routes equal to the plan. `update` may be called for every change of any node."""

    def __init__(self, own_name: str, cluster_cidr: str, nft: Nft) -> None:
        self.own_name = own_name
        self.cluster_cidr = cluster_cidr
        self.nft = nft
        self.installed: dict[str, str] | None = None

    async def start(self) -> None:
        """Install the way out. Raises NftError."""
        await self.nft.apply(way_out(self.cluster_cidr))

    async def update(self, nodes: Iterable[core_v1.Node]) -> None:
        """Make the routes follow the nodes; a route that can't be set is logged and tried again at the next change."""
        wanted = routes_for(nodes, self.own_name)
        if self.installed is None:
            self.installed = await asyncio.to_thread(_read_routes)
        for cidr in [c for c in self.installed if c not in wanted]:
            await self._change("delete", cidr, self.installed.pop(cidr))
        for cidr, gateway in wanted.items():
            if self.installed.get(cidr) != gateway and await self._change("replace", cidr, gateway):
                self.installed[cidr] = gateway

    async def _change(self, verb: str, cidr: str, gateway: str) -> bool:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            await asyncio.to_thread(_change_route, verb, cidr, gateway)
        except NetlinkError as error:
            log.warning("pod route not changed", verb=verb, pods=cidr, node=gateway, error=str(error))
            return False
        log.info("pod route", verb=verb, pods=cidr, node=gateway)
        return True


def _read_routes() -> dict[str, str]:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        return {
            f"{route.get_attr('RTA_DST')}/{route['dst_len']}": route.get_attr("RTA_GATEWAY")
            for route in netlink.get_routes(family=2, proto=ROUTE_PROTOCOL)
        }


def _change_route(verb: str, cidr: str, gateway: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.route(verb, dst=cidr, gateway=gateway, proto=ROUTE_PROTOCOL)


__all__ = ["NftError", "PodNetwork", "internal_ip", "routes_for", "way_out"]
