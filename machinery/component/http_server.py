"""HTTPS for probes and Prometheus: /livez, /readyz, /healthz (each with ?verbose), /metrics, /configz.

A few GET paths need no framework, and a framework would cost every process some 28 MB and 0.3 s; this serves HTTP/1.1
straight from asyncio. The probes answer anyone; /metrics and /configz only to a client with a certificate by the
cluster's CA.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from machinery.component import health as health_module
from machinery.component import logs, metrics, tls
from machinery.component.config import ComponentConfig
from machinery.component.health import Health
from machinery.component.tls_listener import IDLE_SECONDS_MAX, TlsListener

CONNECTIONS_MAX = 100

Answer = tuple[int, str, bytes]
Handler = Callable[[str], Answer]
"""(query string) to (status, content type, body)."""

_PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
            431: "Request Header Fields Too Large", 500: "Internal Server Error",
            503: "Service Unavailable"}  # fmt: skip

log = logs.get("http_server")


class HttpServer(TlsListener):
    """A running server."""

    def __init__(self, config: ComponentConfig, health: Health, extra: dict[str, Handler] | None = None) -> None:
        super().__init__(config.serving, connections_max=CONNECTIONS_MAX)
        self._config = config
        self._health = health
        self._open: dict[str, Handler] = {"/livez": self._live, "/readyz": self._ready, "/healthz": self._live}
        self._guarded: dict[str, Handler] = {"/metrics": _metrics, "/configz": self._configz, **(extra or {})}

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: tls.Identity | None
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        async with asyncio.timeout(IDLE_SECONDS_MAX):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                writer.write(_response("GET", (431, "text/plain", b"request head too large\n"), close=True))
                return False
        line, *fields = head.decode("latin-1").split("\r\n")
        parts = line.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields if f)}
        # A body is never read, so a request that announces one ends the connection.
        close = "close" in headers.get("connection", "").lower() or bool(
            headers.keys() & {"content-length", "transfer-encoding"} and headers.get("content-length") != "0"
        )
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            writer.write(_response("GET", (400, "text/plain", b"malformed request line\n"), close=True))
            return False
        method, target, version = parts
        close = close or version == "HTTP/1.0"
        writer.write(_response(method, self._answer(method, target, identity), close=close))
        async with asyncio.timeout(IDLE_SECONDS_MAX):
            await writer.drain()
        return not close

    def _answer(self, method: str, target: str, identity: tls.Identity | None) -> Answer:
        path, _, query = target.partition("?")
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"only GET and HEAD\n"
        handler = self._open.get(path)
        if handler is None:
            handler = self._guarded.get(path)
            if handler is None:
                paths = sorted([*self._open, *self._guarded])
                return 404, "text/plain", ("\n".join(["paths:", *paths]) + "\n").encode()
            if identity is None:
                return 401, "text/plain", b"a client certificate is required\n"
        try:
            return handler(query)
        except Exception as err:
            log.error("request failed", path=path, exc_info=err)
            return 500, "text/plain", b"internal error, see the log\n"

    def _live(self, query: str) -> Answer:
        return _probe("livez", self._health.live(), query)

    def _ready(self, query: str) -> Answer:
        return _probe("readyz", self._health.ready(), query)

    def _configz(self, _query: str) -> Answer:
        return 200, "application/json", msgspec.json.format(msgspec.json.encode(self._config), indent=2)


def _probe(title: str, outcomes: list[health_module.Outcome], query: str) -> Answer:
    well, text = health_module.report(title, outcomes, verbose="verbose" in query)
    return (200 if well else 503), "text/plain; charset=utf-8", text.encode()


def _metrics(_query: str) -> Answer:
    return 200, metrics.CONTENT_TYPE, metrics.exposition()


def _response(method: str, answer: Answer, *, close: bool) -> bytes:
    status, content_type, body = answer
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        f"x-content-type-options: nosniff\r\n{'connection: close' + chr(13) + chr(10) if close else ''}\r\n"
    )
    return head.encode("latin-1") + (b"" if method == "HEAD" else body)


async def serve(config: ComponentConfig, health: Health, extra: dict[str, Handler] | None = None) -> HttpServer:
    """Start serving on `config.http_address`. `extra` paths are guarded like /metrics. Raises Fatal."""
    server = HttpServer(config, health, extra)
    await server.start(config.http_address)
    return server
