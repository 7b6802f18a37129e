"""Answers on the local segment for the addresses of load balancers: one node for each address, another if it fails.

A pure choice (`speakers`: every node works out the same one) and a thin shell. The node that speaks for an address has
it on its link, so that the kernel answers ARP, and tells everyone by gratuitous ARP; the rules of Services do the rest.
Who comes next in the order for an address watches those before it by ARP, so that an address moves within seconds, long
before the cluster takes the node for lost. Addresses stay when the proxy stops, and are adopted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from machinery.api.service_views import EndpointSlice, Service
from machinery.component import logs
from services.kube_proxy import ip_program
from services.kube_proxy.api import Node
from services.kube_proxy.ip_program import IpError
from services.kube_proxy.network import internal_ip
from services.kube_proxy.ruleset import load_balancer_ips

log = logs.get("announce")

PROBE_SECONDS = 1.0
# Lost packets happen; a node that misses this many probes in a row is taken for gone.
MISSES_MAX = 3
# Repeated, because a node that was cut off for a while did not hear, and was not heard by, the segment.
REPEAT_PROBES = 5
# Marks addresses as ours on the link, so that we remove only our own.
LABEL = "cutaway"
EXCLUDED_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


def ranking(address: str, nodes: Iterable[str]) -> list[str]:
    """The nodes in the order in which they should speak for an address: spread, and stable when others come and go."""
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{address} {node}".encode()).digest())


def ready_nodes(nodes: Iterable[Node]) -> dict[str, str]:
    """Name -> address of every node that may speak."""
    return {
        node.metadata.name: internal_ip(node)
        for node in nodes
        if EXCLUDED_LABEL not in (node.metadata.labels or {})
        and any(
            c.type == "Ready" and c.status == "True" for c in (node.status.conditions if node.status else None) or ()
        )
        and internal_ip(node)
    }


# An index of the Services that concern us, of one value: among many they are few, and this is asked after each change.
BALANCED = "balanced"


def is_balanced(service: Service) -> list[str]:
    """The indexer."""
    return [BALANCED] if service.spec is not None and service.spec.type == "LoadBalancer" else []


def speakers(
    services: Iterable[Service], slices: Callable[[str], Sequence[EndpointSlice]], nodes: Mapping[str, str]
) -> dict[str, list[str]]:
    """Address -> nodes that may speak for it, the one that should first. Pure."""
    found: dict[str, set[str]] = {}
    for service in services:
        spec = service.spec
        if spec is None or spec.type != "LoadBalancer" or spec.load_balancer_class:
            continue
        candidates = set(nodes)
        if spec.external_traffic_policy == "Local":
            # Any other node would drop what it is sent.
            candidates &= _nodes_with_endpoints(slices(service.key))
        for address in load_balancer_ips(service):
            found.setdefault(address, set()).update(candidates)
    return {address: ranking(address, candidates) for address, candidates in found.items()}


def _nodes_with_endpoints(slices: Iterable[EndpointSlice]) -> set[str]:
    return {
        item.node_name
        for piece in slices
        for item in piece.endpoints or ()
        if item.node_name and (item.conditions is None or item.conditions.ready is not False)
    }


def arp(kind: int, hardware: bytes, sender: str, target: str, target_hardware: bytes = bytes(6)) -> bytes:
    """An ARP packet in its Ethernet frame, to everyone (RFC 826): kind 1 asks, 2 tells."""
    head = b"\xff" * 6 + hardware + b"\x08\x06" + bytes.fromhex("00010800060400") + bytes([kind])
    return head + hardware + socket.inet_aton(sender) + target_hardware + socket.inet_aton(target)


@dataclass(slots=True)
class _Link:
    name: str
    address: str
    network: ipaddress.IPv4Network


class Announcer:
    """Keeps this node's addresses as the choice has them."""

    def __init__(
        self,
        own_name: str,
        services: Callable[[], Sequence[Service]],
        slices: Callable[[str], Sequence[EndpointSlice]],
        nodes: Callable[[], Iterable[Node]],
    ) -> None:
        self.own_name = own_name
        self.services = services
        self.slices = slices
        self.nodes = nodes
        self.wake = asyncio.Event()
        self.misses: dict[str, int] = {}
        self.held: dict[str, str] = {}
        self.link: _Link | None = None

    async def run(self) -> None:
        """Follow changes, and probe while there is something to watch, for ever."""
        await self._adopt()
        rounds = 0
        while True:
            try:
                order = speakers(self.services(), self.slices, ready_nodes(self.nodes()))
                await self._settle(order)
                if order:
                    await self._probe(order)
                    rounds += 1
                    if rounds % REPEAT_PROBES == 0:
                        self._tell(self.held)
            except (IpError, OSError) as error:
                log.warning("load balancer addresses not looked at", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS if self._has_work() else None):
                    await self.wake.wait()
            self.wake.clear()

    def _has_work(self) -> bool:
        return bool(self.held) or bool(self.misses) or bool(self.services())

    async def _adopt(self) -> None:
        for link in await ip_program.show("-4", "address"):
            for info in link.get("addr_info", []):
                if str(info.get("label", "")).endswith(f":{LABEL}"):
                    self.held[info["local"]] = link["ifname"]

    async def _settle(self, order: Mapping[str, list[str]]) -> None:
        """Take and leave addresses."""
        mine = {a for a, names in order.items() if self._first_alive(names) == self.own_name}
        leave = [f"address delete {a}/32 dev {link}" for a, link in self.held.items() if a not in mine]
        for address in [a for a in self.held if a not in mine]:
            del self.held[address]
            log.info("load balancer address left", address=address)
        await ip_program.batch(leave)
        new = mine - self.held.keys()
        if not new:
            return
        link = await self._uplink()
        taken = {a: link.name for a in new if link is not None and ipaddress.IPv4Address(a) in link.network}
        await ip_program.batch([f"address replace {a}/32 dev {name} label {name}:{LABEL}" for a, name in taken.items()])
        self.held |= taken
        self._tell(taken)
        for address in taken:
            log.info("load balancer address taken", address=address)

    def _first_alive(self, names: Sequence[str]) -> str:
        alive = [n for n in names if n == self.own_name or self.misses.get(n, 0) < MISSES_MAX]
        return alive[0] if alive else ""

    async def _uplink(self) -> _Link | None:
        own = next((internal_ip(n) for n in self.nodes() if n.metadata.name == self.own_name), "")
        for link in await ip_program.show("-4", "address"):
            for info in link.get("addr_info", []):
                if info["local"] == own:
                    network = ipaddress.IPv4Network(f"{own}/{info['prefixlen']}", strict=False)
                    self.link = _Link(link["ifname"], own, network)
                    return self.link
        return None

    async def _probe(self, order: Mapping[str, list[str]]) -> None:
        """Ask those that come before us for some address whether they are there."""
        nodes = ready_nodes(self.nodes())
        before: set[str] = set()
        for names in order.values():
            if self.own_name in names:
                before.update(names[: names.index(self.own_name)])
        self.misses = {name: count for name, count in self.misses.items() if name in before}
        link = self.link or await self._uplink()
        watched = {nodes[name]: name for name in before}
        if link is None or not watched:
            return
        answered = await _who_is_there(link.name, link.address, list(watched))
        for address, name in watched.items():
            self.misses[name] = 0 if address in answered else self.misses.get(name, 0) + 1
            if self.misses[name] == MISSES_MAX:
                log.warning("node does not answer; its load balancer addresses move", node=name)

    def _tell(self, addresses: Mapping[str, str]) -> None:
        for name in set(addresses.values()):
            with _raw(name) as raw:
                hardware = raw.getsockname()[4]
                for address in (a for a, link in addresses.items() if link == name):
                    # Both kinds: some hosts take only the one, some only the other.
                    raw.send(arp(1, hardware, address, address))
                    raw.send(arp(2, hardware, address, address, b"\xff" * 6))


def _raw(link: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    raw.bind((link, 0x0806))
    raw.setblocking(False)
    return raw


async def _who_is_there(link: str, own: str, addresses: Sequence[str]) -> set[str]:
    """Which of these addresses of the segment answer ARP within half a second."""
    loop = asyncio.get_running_loop()
    answered: set[str] = set()
    with _raw(link) as raw, contextlib.suppress(TimeoutError):
        hardware = raw.getsockname()[4]
        for address in addresses:
            raw.send(arp(1, hardware, own, address))
        async with asyncio.timeout(PROBE_SECONDS / 2):
            while len(answered) < len(addresses):
                frame = await loop.sock_recv(raw, 128)
                if frame[20:22] == b"\x00\x02":
                    sender = socket.inet_ntoa(frame[28:32])
                    if sender in addresses:
                        answered.add(sender)
    return answered
