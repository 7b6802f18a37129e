"""Clears the kernel's memory of UDP flows whose endpoint no longer serves.

A UDP flow has no end: as long as a client goes on sending, the kernel sends to the endpoint that was chosen first, or,
if there was none, nowhere. `stale` is a pure function of the kernel's entries and the ports; the rest is the
`conntrack` program.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from machinery.component import logs
from services.kube_proxy.ip_program import IpError
from services.kube_proxy.ruleset import ServicePort

log = logs.get("conntrack")

# Entries deleted by one run of the program at a time.
TOGETHER = 8
_FIELD = re.compile(r"(src|dst|sport|dport)=(\S+)")


class Flow(NamedTuple):
    """One entry: what the client sent, and who answers (or would)."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    # ip:port
    answers: str


def parse(line: str) -> Flow | None:
    """One line of `conntrack -L -p udp`; None for what is none."""
    fields = _FIELD.findall(line)
    if len(fields) < 8:
        return None
    original, reply = dict(fields[:4]), dict(fields[4:8])
    answers = f"{reply['src']}:{reply['sport']}"
    return Flow(original["src"], original["dst"], int(original["sport"]), int(original["dport"]), answers)


def stale(flows: Iterable[Flow], ports: Iterable[ServicePort], node_addresses: frozenset[str]) -> list[Flow]:
    """The flows to a UDP front end that end at an address which is no endpoint of it (any more).

    That includes flows from a time when there was none, which the kernel did not redirect at all.
    """
    by_address: dict[tuple[str, int], ServicePort] = {}
    for port in ports:
        if port.protocol == "UDP":
            by_address |= {(frontend.ip, frontend.port): port for frontend in port.frontends}
    found = []
    for flow in flows:
        owner = by_address.get((flow.destination, flow.destination_port))
        if owner is None and flow.destination in node_addresses:
            owner = by_address.get(("", flow.destination_port))
        if owner is not None and flow.answers not in owner.serving:
            found.append(flow)
    return found


def concerns(before: Mapping[str, ServicePort | None], after: Mapping[str, ServicePort | None]) -> bool:
    """Whether a change may leave stale flows: who serves UDP, or at which addresses, is different."""
    for key, port in after.items():
        old = before.get(key)
        some = port or old
        if some is not None and some.protocol == "UDP":
            if old is None or port is None or old.serving != port.serving:
                return True
            if {(f.ip, f.port) for f in old.frontends} != {(f.ip, f.port) for f in port.frontends}:
                return True
    return False


class Cleaner:
    """Clears stale flows after changes; changes that come meanwhile are gathered."""

    def __init__(
        self, ports: Callable[[], Iterable[ServicePort]], node_addresses: Callable[[], Awaitable[frozenset[str]]]
    ) -> None:
        self.ports = ports
        self.node_addresses = node_addresses
        self.wake = asyncio.Event()

    def changed(self, before: Mapping[str, ServicePort | None], after: Mapping[str, ServicePort | None]) -> None:
        """A listener of the proxy."""
        if concerns(before, after):
            self.wake.set()

    async def run(self) -> None:
        """Clear after every change that concerns us, for ever."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            try:
                await clear(self.ports, await self.node_addresses())
            except (IpError, OSError) as error:
                log.error("stale UDP flows not cleared", error=str(error))


async def clear(ports: Callable[[], Iterable[ServicePort]], node_addresses: frozenset[str]) -> int:
    """Delete what is stale by the ports as they are once the flows are known. Raises OSError if the program is not
    installed; how many."""
    try:
        listing = await _conntrack("-L", "-p", "udp")
        flows = [flow for line in listing.splitlines() if (flow := parse(line)) is not None]
        dead = stale(flows, ports(), node_addresses)
        for start in range(0, len(dead), TOGETHER):
            await asyncio.gather(*(_delete(flow) for flow in dead[start : start + TOGETHER]))
    except FileNotFoundError as error:
        raise FileNotFoundError("conntrack is not installed (Debian's package is conntrack)") from error
    if dead:
        log.info("stale UDP flows cleared", flows=len(dead))
    return len(dead)


async def _delete(flow: Flow) -> None:
    await _conntrack(
        "-D", "-p", "udp", "-s", flow.source, "-d", flow.destination,
        "--sport", str(flow.source_port), "--dport", str(flow.destination_port),
    )  # fmt: skip


async def _conntrack(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "conntrack", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    # It also exits with 1 when an entry has ended meanwhile, which is what was wanted.
    return output.decode(errors="replace")
