"""Connections: who is at the other end, and what ends when it goes.

aiohttp's router, application and access log are left out: this is its bare server with one handler, which costs a third
of what an `Application` does for a small answer. What it does for each request around the handler is done here in fewer
steps, for the sake of the small requests that most are.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo

from services.apiserver.rest.bodies import BODY_BYTES_MAX

HEADER_BYTES_MAX = 64 * 1024
IDLE_SECONDS_MAX = 180.0
HEAD_SECONDS_MAX = 32.0
"""How long a new connection may take to say what it wants; upstream's ReadHeaderTimeout."""
HANDSHAKE_SECONDS_MAX = 10.0
WAITING_MAX = 2000
"""Connections on which no request is under way. One more, and some of them are closed: first those that have never made
a request, then those without a client certificate, of each those that have waited longest, and last of all those that
have only just come: they are about to ask. Whoever holds connections only to hold them costs others nothing."""
JUST_COME_SECONDS = 2.0
UNSENT_BYTES_MAX = 256 * 1024 * 1024
LARGE_BYTES_MIN = 64 * 1024
"""What large answers may occupy that their clients do not take. Beyond, who has been at it longest is cut off."""
ARRIVED_BYTES_MAX = 64 * 1024
"""Up to here a body is taken without being read piece by piece."""


class Connection(RequestHandler):
    """One TCP connection: its TLS user is found once, and tasks that stream to it end with it."""

    __slots__ = (
        "_head_timer", "_lost_callbacks", "_peers", "came_at", "certificate_der", "client_address", "user_until",
    )  # fmt: skip

    def __init__(self, server: Server, *args: Any, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self._peers = server.peers
        self._head_timer: asyncio.TimerHandle | None = None
        self._lost_callbacks: set[Callable[[], object]] = set()
        self.came_at = 0.0
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
        loop = asyncio.get_running_loop()
        self.came_at = loop.time()
        self._head_timer = loop.call_later(HEAD_SECONDS_MAX, self.force_close)
        self._peers.came(self)

    @property
    def is_new(self) -> bool:
        """Whether it has not made a request yet."""
        return self._head_timer is not None

    def begins(self) -> None:
        """A request has come."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._peers.waiting.pop(self, None)

    def ends(self, response: Any) -> None:
        """A request is answered, as far as that is for us to do."""
        if self.transport is None:
            return  # The client has gone meanwhile.
        self._peers.waiting[self] = None
        body = getattr(response, "body", None)  # What streams, or is a WebSocket, has none.
        if isinstance(body, bytes) and len(body) >= LARGE_BYTES_MIN:
            self._peers.send(self, len(body))

    @property
    def unsent_bytes(self) -> int:
        """What it was sent and has not taken."""
        return 0 if self.transport is None else int(self.transport.get_write_buffer_size())

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone: whatever streams to it hears so."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._peers.left(self)
        callbacks, self._lost_callbacks = self._lost_callbacks, set()
        for callback in callbacks:
            callback()
        super().connection_lost(exc)

    async def start(self) -> None:
        """Answer the connection's requests, one after the other: aiohttp's method of this name, without a task for each
        request. Tasks keep apart what requests do to context variables; here, whoever sets one takes it back.
        """
        while not self._force_close:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            if not await self._answer_next():
                break
            if self._messages:
                # Requests that came together don't keep the loop from everybody else's.
                await asyncio.sleep(0)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _answer_next(self) -> bool:
        """Answer the request that came first; whether the connection goes on after it."""
        self.begins()
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        handler, task, loop = self._request_handler, self._task_handler, self._loop
        if handler is None or task is None:
            return False  # The client went while the request waited.
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        writer = StreamWriter(self, loop)
        request = web.BaseRequest(message, payload, self, writer, task, loop, client_max_size=BODY_BYTES_MAX)
        try:
            response, gone = await self._handle_request(request, None, handler)
            if gone:
                return False
            self._keepalive = bool(response.keep_alive)
            if not payload.is_eof():
                await self._discard(payload)
        except ConnectionError:
            return False
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as error:
            self.log_exception("Unhandled exception", exc_info=error)
            self.force_close()
            return False
        if not self._keepalive or self._close or self._force_close:
            return False
        self._next_keepalive_close_time = loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        return True

    async def _discard(self, payload: StreamReader) -> None:
        """Take for a while what comes of a body that nobody wanted: were the connection closed with it unread, the
        client would be reset before it sees the answer.
        """
        try:
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()
        except TimeoutError:
            self.close()

    def arrived(self, payload: StreamReader) -> bytes | None:
        """A body that is here in one piece already, as a small one is that was sent with its head; None for any other.

        aiohttp's `read` would ask the parser and the transport to go on, which is dearer than all else about it.
        """
        pieces: Any = getattr(payload, "_buffer", ())
        if len(pieces) != 1 or not payload.is_eof() or payload.exception() is not None or self._reading_paused:
            return None
        body: bytes = pieces[0]
        return body if len(body) <= ARRIVED_BYTES_MAX and not payload._buffer_offset else None

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


class Peers:
    """The connections of one server, by what they cost.

    `waiting` holds, in the order in which they began to wait, those without a request under way. `_sending` holds those
    whose last answer was large, with its size, the oldest first; what they really have not taken is asked of their
    transports once the sum of sizes could be too much.
    """

    def __init__(
        self,
        waiting_max: int = WAITING_MAX,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
        just_come_seconds: float = JUST_COME_SECONDS,
    ) -> None:
        self.waiting: dict[Connection, None] = {}
        self._waiting_max = waiting_max
        self._just_come_seconds = just_come_seconds
        self._unsent_bytes_max = unsent_bytes_max
        self._sending: dict[Connection, int] = {}
        self._sending_bytes = 0

    def came(self, connection: Connection) -> None:
        """One more; some of those that wait may have to go."""
        if len(self.waiting) >= self._waiting_max:
            # A look at all of them, so not for each that comes.
            count = max(1, self._waiting_max // 50)
            recently = connection.came_at - self._just_come_seconds
            for peer in heapq.nsmallest(count, self.waiting, key=partial(_worth, recently)):
                self.waiting.pop(peer)
                transport = peer.transport
                peer.force_close()
                if transport is not None:
                    # No waiting for the farewell of who holds connections: its descriptor is needed now.
                    transport.abort()
        self.waiting[connection] = None

    def left(self, connection: Connection) -> None:
        """One is gone."""
        self.waiting.pop(connection, None)
        self._sending_bytes -= self._sending.pop(connection, 0)

    def send(self, connection: Connection, size: int) -> None:
        """A large answer is about to go out."""
        self._sending_bytes += size - self._sending.pop(connection, 0)
        self._sending[connection] = size
        if self._sending_bytes <= self._unsent_bytes_max:
            return
        for peer in [peer for peer in self._sending if peer is not connection and not peer.unsent_bytes]:
            self._sending_bytes -= self._sending.pop(peer)
        while self._sending_bytes > self._unsent_bytes_max and len(self._sending) > 1:
            slowest = next(iter(self._sending))
            self._sending_bytes -= self._sending.pop(slowest)
            if slowest.transport is not None:
                # Not `close`, which would wait until all is sent.
                slowest.transport.abort()


def _worth(recently: float, peer: Connection) -> tuple[bool, bool, bool]:
    return peer.is_new and peer.came_at > recently, not peer.is_new, peer.certificate_der is not None


class Server(web.Server):
    """The bare HTTP server over `Connection`s."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.peers = Peers()

    def __call__(self) -> RequestHandler:
        """A protocol for one more connection."""
        return Connection(self, loop=self._loop, **self._kwargs)


def make_server(handler: Callable[[web.BaseRequest], Any], peers: Peers | None = None) -> Server:
    """The server; its protocols are made by calling it. `peers` sets other bounds."""
    server = Server(
        handler,
        access_log=None,
        keepalive_timeout=IDLE_SECONDS_MAX,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
    )
    server.peers = peers or server.peers
    return server
