"""Plain HTTP answers for balancers in front of the cluster: is this node's proxy well, and does the node take traffic?

`/healthz` is 503 while rules are late or the node is going (KEP-3836: connections drain, new ones go elsewhere);
`/livez` only while rules are late; `/proxyMode` says by what means packets are led. There is nothing secret in any of
them, and balancers have no certificate of the cluster: all else is on the component's TLS port.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from machinery.api import objects
from machinery.component import logs
from services.kube_proxy.api import Node

log = logs.get("health")
REQUEST_SECONDS = 5.0
REQUEST_BYTES_MAX = 8192
# A change that is not in the rules after this time is late.
LATE_SECONDS = 60.0
# As the cluster autoscaler marks a node that it is about to delete.
GOING_TAINT = "ToBeDeletedByClusterAutoscaler"

# Path -> status and body (JSON bytes, or text); None for what there is not.
Answer = Callable[[str], tuple[int, bytes] | None]
_REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Health:
    """What is known when somebody asks. `pending_since` is of the oldest change not in the rules, on `now`'s clock."""

    is_written: bool
    pending_since: float | None
    node: Node | None

    def is_alive(self, now: float) -> bool:
        """Whether the rules keep up."""
        return self.is_written and (self.pending_since is None or now - self.pending_since < LATE_SECONDS)

    def is_eligible(self) -> bool:
        """Whether a balancer should send new connections to this node."""
        if self.node is None:
            return True
        taints = (self.node.spec.taints if self.node.spec else None) or ()
        return self.node.metadata.deletion_timestamp is None and all(t.key != GOING_TAINT for t in taints)


def answer(health: Health, path: str, now: float, wall: str) -> tuple[int, bytes] | None:
    """The answer to a path, as upstream's kube-proxy has it."""
    if path == "/proxyMode":
        return 200, b"nftables"
    if path not in ("/healthz", "/livez"):
        return None
    body: dict[str, object] = {"lastUpdated": wall, "currentTime": wall}
    well = health.is_alive(now)
    if path == "/healthz":
        body["nodeEligible"] = health.is_eligible()
        well = well and health.is_eligible()
    return (200 if well else 503), msgspec.json.encode(body)


def response(status: int, body: bytes, headers: str = "") -> bytes:
    """A whole HTTP answer after which the connection ends."""
    kind = "application/json" if body.startswith(b"{") else "text/plain; charset=utf-8"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\n"
        f"{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def serve(host: str, port: int, reply: Callable[[str], bytes]) -> asyncio.Server:
    """Answer one request a connection; `reply` gets its path. Raises OSError."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                writer.write(reply(words[1].partition("?")[0] if len(words) > 1 else ""))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(converse, host, port, limit=REQUEST_BYTES_MAX)


async def serve_health(addresses: list[str], health: Callable[[], Health]) -> list[asyncio.Server]:
    """Answer at these addresses ("0.0.0.0:10256"); one that can't be had is told and left."""
    servers = []

    def reply(path: str) -> bytes:
        found = answer(health(), path, time.monotonic(), objects.now_rfc3339())
        return response(*found) if found else response(404, b"404 page not found\n")

    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            servers.append(await serve(host, int(port), reply))
        except OSError as error:
            log.error("health is not served", address=address, error=str(error))
    return servers
