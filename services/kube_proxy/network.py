"""The pod network between nodes: one route a node, and the way out of the cluster.

A pure plan (`hops`, `commands`, `way_out`) and a thin shell (`PodNetwork`). A node on our own segment is reached by a
host route through its address; any other by VXLAN: its packets are wrapped in UDP to the node's address. Nothing is
learned from traffic: a node's VXLAN hardware address follows from its IP address, so every node can enter every other.
With another CNI plugin that does this itself, switch it off (`pod_network: false`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from machinery.component import logs
from services.kube_proxy import ip_program
from services.kube_proxy.api import Node
from services.kube_proxy.ip_program import IpError
from services.kube_proxy.nft import Nft
from services.kube_proxy.ranges import refused

TABLE = "ip cutaway-pod-network"
# Marks routes as ours (like `proto bird` for bird), so that we remove only our own.
ROUTE_PROTOCOL = 99
VXLAN = "cutaway-vxlan"
VXLAN_ID = 4196
# The kernel's default, 8472, is what other overlays take.
VXLAN_PORT = 4789
VXLAN_OVERHEAD_BYTES = 50
log = logs.get("network")


class Hop(NamedTuple):
    """How another node's pods are reached."""

    node_ip: str
    vxlan: bool = False


def hops(nodes: Iterable[Node], own_name: str, segments: Sequence[ipaddress.IPv4Network]) -> dict[str, Hop]:
    """Pod range -> way to it, for every other node whose range is in nobody's way.

    `segments` are the networks that this node is on.
    """
    found: dict[str, Hop] = {}
    nodes = list(nodes)
    left_out = refused(nodes)
    for node in nodes:
        if node.metadata.name in (own_name, *left_out) or node.spec is None or not node.spec.pod_cidr:
            continue
        address = internal_ip(node)
        if address:
            neighbour = any(ipaddress.IPv4Address(address) in segment for segment in segments)
            found[str(ipaddress.ip_network(node.spec.pod_cidr, strict=False))] = Hop(address, not neighbour)
    return found


def internal_ip(node: Node) -> str:
    """The node's first IPv4 InternalIP; empty if it has not reported one."""
    addresses = (node.status.addresses if node.status else None) or []
    return next((a.address for a in addresses if a.type == "InternalIP" and "." in a.address), "")


def hardware_address(node_ip: str) -> str:
    """The VXLAN device's own, as every node works it out: locally administered, with the IP address in it."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(node_ip).packed)


def commands(verb: str, cidr: str, hop: Hop) -> tuple[list[str], list[str]]:
    """What `ip -batch` and `bridge -batch` have to do; `verb` is "replace" or "delete"."""
    if not hop.vxlan:
        return [f"route {verb} {cidr} via {hop.node_ip} proto {ROUTE_PROTOCOL}"], []
    gateway = str(ipaddress.ip_network(cidr)[0])
    hardware = hardware_address(hop.node_ip)
    neighbour = f"neighbour {verb} {gateway} lladdr {hardware} dev {VXLAN}"
    route = f"route {verb} {cidr} via {gateway} dev {VXLAN} proto {ROUTE_PROTOCOL} onlink"
    entry = f"fdb {'replace' if verb == 'replace' else 'del'} {hardware} dev {VXLAN} dst {hop.node_ip}"
    return [f"{neighbour} nud permanent" if verb == "replace" else neighbour, route], [entry]


def vxlan_device(node_ip: str, pod_cidr: str, mtu: int) -> list[str]:
    """`ip -batch` commands that make this node's device."""
    return [
        f"link add {VXLAN} type vxlan id {VXLAN_ID} dstport {VXLAN_PORT} local {node_ip} nolearning",
        f"link set {VXLAN} address {hardware_address(node_ip)} mtu {mtu - VXLAN_OVERHEAD_BYTES} up",
        # A source address for this node's own packets to far pods: the first of its range, which no pod gets.
        f"address replace {ipaddress.ip_network(pod_cidr, strict=False)[0]}/32 dev {VXLAN}",
    ]


def way_out(cluster_cidr: str) -> str:
    """The nft table that lets pods' packets leave the cluster with the node's address.

    Pods have the MTU of the node's segment. What they send through the tunnel must be smaller: a TCP connection is told
    so as it begins, so that none rests on ICMP messages, which many a firewall drops; the rest is told by those.
    """
    return f"""
table {TABLE} {{}}
delete table {TABLE}
table {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat + 10; policy accept;
    ip saddr {cluster_cidr} ip daddr != {cluster_cidr} ip daddr != 224.0.0.0/4 masquerade fully-random
  }}
  chain forward {{
    type filter hook forward priority mangle; policy accept;
    oifname "{VXLAN}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
  }}
}}
"""


# How long a route that the kernel dropped is missed at most. A look costs two runs of `ip`.
LOOK_SECONDS = 15.0


class PodNetwork:
    """Keeps this node's routes equal to the plan. `update` may be called for every change of any node.

    `tell` makes an event of what keeps this node's own pods from being reached.
    """

    def __init__(
        self, own_name: str, cluster_cidr: str, nft: Nft, tell: Callable[[Node, str], None] = lambda _node, _why: None
    ) -> None:
        self.own_name = own_name
        self.tell = tell
        self.told = ""
        self.cluster_cidr = cluster_cidr
        self.nft = nft
        self.installed: dict[str, Hop] | None = None

    async def start(self) -> None:
        """Install the way out. Raises NftError."""
        await self.nft.apply(way_out(self.cluster_cidr))

    async def update(self, nodes: Iterable[Node]) -> None:
        """Make the routes follow the nodes; a route that can't be set is logged and tried again at the next change."""
        nodes = list(nodes)
        self._tell_if_refused(nodes)
        try:
            links = await ip_program.show("-4", "address")
            wanted = hops(nodes, self.own_name, _segments(links))
            there = await _read_routes()
            # The kernel drops the routes of an interface that goes down or away, and tells nobody.
            known = self.installed or {}
            tunnel = any(link["ifname"] == VXLAN for link in links)
            self.installed = there | {c: hop for c, hop in known.items() if hop.vxlan and tunnel and c not in there}
            if any(hop.vxlan for hop in wanted.values()):
                await self._ensure_vxlan(nodes, links)
        except IpError as error:
            log.error("pod routes not looked at", error=str(error))
            return
        for cidr in [c for c, hop in self.installed.items() if wanted.get(c) != hop]:
            # A route that only changes its way is replaced, so that there is no moment without one.
            hop = self.installed.pop(cidr)
            if cidr not in wanted:
                await _carry_out("delete", cidr, hop)
        for cidr, hop in wanted.items():
            if cidr not in self.installed and await _carry_out("replace", cidr, hop):
                self.installed[cidr] = hop

    def _tell_if_refused(self, nodes: Sequence[Node]) -> None:
        """Each proxy tells of its own node, so that it is told once."""
        why = refused(nodes).get(self.own_name, "")
        if why and why != self.told:
            log.error("this node's pods are not reached from other nodes", reason=why)
            self.tell(next(n for n in nodes if n.metadata.name == self.own_name), why)
        self.told = why

    async def _ensure_vxlan(self, nodes: Sequence[Node], links: Sequence[Mapping[str, object]]) -> None:
        own = next((n for n in nodes if n.metadata.name == self.own_name), None)
        if own is None or own.spec is None or not own.spec.pod_cidr or any(li["ifname"] == VXLAN for li in links):
            return
        address = internal_ip(own)
        uplink = next((li for li in links if address in str(li.get("addr_info"))), {})
        await ip_program.batch(vxlan_device(address, own.spec.pod_cidr, int(str(uplink.get("mtu", 1500)))))
        log.info("vxlan device made", address=address)


def _segments(links: Iterable[Mapping[str, object]]) -> list[ipaddress.IPv4Network]:
    infos = [info for link in links for info in link.get("addr_info", [])]  # type: ignore[attr-defined]
    return [
        ipaddress.IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
        for info in infos
        if info.get("scope") == "global" and info["prefixlen"] < 32
    ]


async def _carry_out(verb: str, cidr: str, hop: Hop) -> bool:
    routes, entries = commands(verb, cidr, hop)
    try:
        await ip_program.batch(entries, "bridge")
        await ip_program.batch(routes)
    except IpError as error:
        log.warning("pod route not changed", verb=verb, pods=cidr, node=hop.node_ip, error=str(error))
        return False
    log.info("pod route", verb=verb, pods=cidr, node=hop.node_ip, vxlan=hop.vxlan)
    return True


async def _read_routes() -> dict[str, Hop]:
    """Our direct routes that an earlier run left; VXLAN ones are simply written again."""
    routes = await ip_program.show("-4", "route", "show", "proto", str(ROUTE_PROTOCOL))
    return {
        str(ipaddress.ip_network(route["dst"])): Hop(route["gateway"])
        for route in routes
        if route.get("dev") != VXLAN and "gateway" in route
    }
