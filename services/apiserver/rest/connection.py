"""Connections: who is at the other end, and what ends when it goes.

aiohttp's router, application and access log are left out: this is its bare server with one handler, which costs a third
of what an `Application` does for a small answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from services.apiserver.rest.bodies import BODY_BYTES_MAX

HEADER_BYTES_MAX = 64 * 1024
IDLE_SECONDS_MAX = 180.0


class Connection(RequestHandler):
    """One TCP connection: its TLS user is found once, and tasks that stream to it end with it."""

    __slots__ = ("_lost_callbacks", "certificate_der", "client_address", "user_until")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lost_callbacks: set[Callable[[], object]] = set()
        self.certificate_der: bytes | None = None
        self.client_address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who the handshake showed."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate_der = tls.getpeercert(binary_form=True) or None
        peer = transport.get_extra_info("peername")
        self.client_address = peer[0] if isinstance(peer, tuple) else ""
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone: whatever streams to it hears so."""
        callbacks, self._lost_callbacks = self._lost_callbacks, set()
        for callback in callbacks:
            callback()
        super().connection_lost(exc)

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log an error, unless it is that the client speaks no HTTP: that is its own affair and is answered with 400,
        and a log that anybody can fill with tracebacks helps nobody.
        """
        if not isinstance(kwargs.get("exc_info"), HttpProcessingError):
            super().log_exception(*args, **kwargs)

    def end_streams(self) -> None:
        """End what streams on this connection, as if the client had gone."""
        for callback in list(self._lost_callbacks):
            callback()

    def on_lost(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` when the client goes; the answer takes that back."""
        self._lost_callbacks.add(callback)
        return lambda: self._lost_callbacks.discard(callback)


class Server(web.Server):
    """The bare HTTP server over `Connection`s."""

    def __call__(self) -> RequestHandler:
        """A protocol for one more connection."""
        return Connection(self, loop=self._loop, **self._kwargs)


def make_server(handler: Callable[[web.BaseRequest], Any]) -> Server:
    """The server; its protocols are made by calling it."""
    loop = asyncio.get_running_loop()

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX)

    return Server(
        handler,
        request_factory=make_request,
        access_log=None,
        keepalive_timeout=IDLE_SECONDS_MAX,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
    )
