"""Port-forward as kubectl speaks it: SPDY/3.1 frames inside WebSocket messages.

Each forwarded connection is a pair of streams with one request id: an error stream (opened first, we write a
sentence if the connection fails) and a data stream, which carries the bytes. They become one numbered connection of
the kubelet's PortForward.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from machinery.api import errors
from protos.cutaway.v1 import stream_pb2
from services.apiserver.rest import spdy
from services.apiserver.rest.context import Call
from services.apiserver.rest.watching import ending_with

if TYPE_CHECKING:
    from services.apiserver.kubelet_proxy import KubeletProxy

TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
# Frames from the client that the kubelet has not taken yet; reading from the client stops while it is full.
PENDING_FRAMES_MAX = 64
CONNECTIONS_MAX = 1024
_DATA_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class _Pair:
    """One forwarded connection: its two streams, and which halves of it are still open."""

    request_id: str
    port: int
    error_stream: int = 0
    data_stream: int = 0
    connection: int = 0
    sent_end: bool = False
    got_end: bool = False


class PortForwardSession:
    """Between a client's SPDY connection and a kubelet's PortForward call.

    `send` writes bytes to the client; `received` is given what the client sends; `frames` is what goes to the
    kubelet and `forward` takes what comes from it.
    """

    def __init__(self, start: stream_pb2.PortForwardStart, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._start = start
        self._send = send
        self._codec = spdy.Codec()
        self._pairs: dict[str, _Pair] = {}
        self._by_stream: dict[int, _Pair] = {}
        self._by_connection: dict[int, _Pair] = {}
        self._next = 1
        self._outgoing: asyncio.Queue[stream_pb2.PortForwardFrame | None] = asyncio.Queue(PENDING_FRAMES_MAX)

    async def frames(self) -> AsyncIterator[stream_pb2.PortForwardFrame]:
        """What the kubelet is sent, until the client is gone."""
        yield stream_pb2.PortForwardFrame(start=self._start)
        while (frame := await self._outgoing.get()) is not None:
            yield frame

    async def end(self) -> None:
        """The client is gone."""
        await self._outgoing.put(None)

    async def received(self, data: bytes) -> None:
        """Bytes from the client. Raises ProtocolError."""
        for frame in self._codec.feed(data):
            match frame:
                case spdy.StreamOpened():
                    await self._opened(frame)
                case spdy.Data():
                    await self._data(frame)
                case spdy.Reset(stream=stream):
                    await self._dropped(stream)
                case spdy.Ping(number=number):
                    await self._send(self._codec.pong(number))

    async def _opened(self, frame: spdy.StreamOpened) -> None:
        headers = frame.headers
        request_id, port = headers.get("requestid", ""), headers.get("port", "")
        if not port.isdigit() or not 0 < int(port) < 65536 or len(self._pairs) >= CONNECTIONS_MAX:
            await self._send(self._codec.reset(frame.stream))
            return
        # Older clients send no id; their two streams have consecutive numbers.
        key = request_id or f"stream-{frame.stream if headers.get('streamtype') == 'error' else frame.stream - 2}"
        pair = self._pairs.setdefault(key, _Pair(key, int(port)))
        if pair.error_stream if headers.get("streamtype") == "error" else pair.data_stream:
            # A connection has two streams: whoever opens more under one id opens connections that nobody counts.
            await self._send(self._codec.reset(frame.stream))
            return
        self._by_stream[frame.stream] = pair
        await self._send(self._codec.reply(frame.stream))
        if headers.get("streamtype") == "error":
            pair.error_stream = frame.stream
            return
        pair.data_stream = frame.stream
        pair.connection = self._next
        self._next += 1
        self._by_connection[pair.connection] = pair
        await self._outgoing.put(stream_pb2.PortForwardFrame(connection=pair.connection, open_port=pair.port))

    async def _data(self, frame: spdy.Data) -> None:
        pair = self._by_stream.get(frame.stream)
        if pair is None or frame.stream != pair.data_stream:
            return
        for begin in range(0, len(frame.data), _DATA_BYTES_MAX):
            piece = frame.data[begin : begin + _DATA_BYTES_MAX]
            await self._outgoing.put(stream_pb2.PortForwardFrame(connection=pair.connection, data=piece))
        if frame.fin and not pair.got_end:
            pair.got_end = True
            await self._outgoing.put(stream_pb2.PortForwardFrame(connection=pair.connection, closed=True))
            self._forget_if_over(pair)

    async def _dropped(self, stream: int) -> None:
        pair = self._by_stream.pop(stream, None)
        if pair is not None and stream == pair.data_stream and not pair.got_end:
            pair.got_end = True
            await self._outgoing.put(stream_pb2.PortForwardFrame(connection=pair.connection, closed=True))
            self._forget_if_over(pair)

    async def forward(self, frame: stream_pb2.PortForwardFrame) -> None:
        """A frame from the kubelet."""
        pair = self._by_connection.get(frame.connection)
        if pair is None:
            return
        kind = frame.WhichOneof("frame")
        if kind == "data":
            await self._send(self._codec.data(pair.data_stream, frame.data))
        elif kind in ("closed", "error") and not pair.sent_end:
            pair.sent_end = True
            text = frame.error.encode() if kind == "error" else b""
            if pair.error_stream:
                await self._send(self._codec.data(pair.error_stream, text, fin=True))
            await self._send(self._codec.data(pair.data_stream, b"", fin=True))
            pair.got_end = pair.got_end or kind == "error"
            self._forget_if_over(pair)

    def _forget_if_over(self, pair: _Pair) -> None:
        if pair.sent_end and pair.got_end:
            self._by_connection.pop(pair.connection, None)
            self._by_stream.pop(pair.data_stream, None)
            self._by_stream.pop(pair.error_stream, None)
            self._pairs.pop(pair.request_id, None)


async def serve_tunnel(call: Call, socket: web.WebSocketResponse, kubelets: KubeletProxy) -> None:
    """Run one port-forward session over an open WebSocket."""

    async def send(data: bytes) -> None:
        await socket.send_bytes(data)

    start = stream_pb2.PortForwardStart(namespace=call.info.namespace, pod=call.info.name)
    session = PortForwardSession(start, send)
    answers = kubelets.port_forward(session.frames())

    async def read_client() -> None:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await session.received(message.data)
        await session.end()

    async def read_kubelet() -> None:
        async for frame in answers:
            await session.forward(frame)
        await socket.close()

    async with ending_with(call, answers):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read_client(), name="port-forward client")
                group.create_task(read_kubelet(), name="port-forward kubelet")
        except* (errors.ApiError, spdy.ProtocolError, ConnectionError) as failed:
            # The session stood already: all that is left is to close it, with the reason in the close frame.
            reason = str(failed.exceptions[0])[:120]
            await socket.close(code=1011, message=reason.encode())
