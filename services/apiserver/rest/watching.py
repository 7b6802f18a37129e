"""WATCH: one JSON line an event, a batch of events in one write, also as WebSocket messages.

The bytes of an event are the stored ones; only the table and metadata forms that kubectl asks for, and protobuf for
who takes nothing else, decode them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from machinery.api import errors
from services.apiserver.rest.context import Call
from services.apiserver.rest.protobuf import stream
from services.apiserver.rest.responses import json_bytes, warning_header
from services.apiserver.watcher import line

if TYPE_CHECKING:
    from services.apiserver.watch_stream import WatchStream
    from services.apiserver.watcher import Events, WatchEvent

_JSON_LINES = "application/json"
_HEADERS = {"Content-Type": _JSON_LINES, "Cache-Control": "no-cache, private"}

Transform = Callable[[bytes, str], bytes]
Framing = Callable[[str, bytes], bytes]


def _framed(batch: Sequence[WatchEvent], transform: Transform | None, framing: Framing) -> list[bytes]:
    if transform is None:
        return [framing(event.type, event.json) for event in batch]
    return [framing(event.type, transform(event.json, event.type)) for event in batch]


def _chunk(batch: Events, transform: Transform | None, framing: Framing) -> bytes:
    """The events as one chunk (RFC 9112, 7.1), made once for all who send the stored objects as lines."""
    shared = transform is None and framing is line
    chunk = batch.wire if shared else None
    if chunk is None:
        frames = b"".join(_framed(batch, transform, framing))
        chunk = b"%x\r\n%b\r\n" % (len(frames), frames)
        if shared:
            batch.wire = chunk
    return chunk


def _sender(call: Call, transform: Transform | None, framing: Framing) -> Callable[[Events], bool]:
    """What sends events to the client at once, and says whether it could: not if the client is slow or gone."""

    def send(events: Events) -> bool:
        transport = call.http.transport
        if transport is None or transport.is_closing() or call.connection.writing_paused:
            return False
        # Past aiohttp's writer, which would frame and copy the same bytes for each watcher.
        transport.write(_chunk(events, transform, framing))
        return True

    return send


def asks_for_websocket(call: Call) -> bool:
    """Whether the answer is to be a WebSocket."""
    return call.http.headers.get("Upgrade", "").lower() == "websocket"


async def stream_watch(
    call: Call, events: WatchStream, transform: Transform | None, *, in_protobuf: bool = False
) -> web.StreamResponse:
    """Write the events to the client until it goes, the watch's time is over, or it falls too far behind."""
    if asks_for_websocket(call):
        return await _stream_websocket(call, events, transform)
    framing: Framing = stream.frame if in_protobuf else line
    response = web.StreamResponse(headers=_HEADERS)
    if in_protobuf:
        response.headers["Content-Type"] = stream.CONTENT_TYPE
    response.headers["Audit-Id"] = call.audit_id
    if call.deprecation:
        response.headers["Warning"] = warning_header(call.deprecation)
    response.enable_chunked_encoding()
    async with ending_with(call, events):
        await response.prepare(call.http)
        send = _sender(call, transform, framing)
        if transform is None and not in_protobuf:
            events.push_to(send)
        try:
            async for batch in events:
                while not send(batch):
                    if call.http.transport is None or call.http.transport.is_closing():
                        raise ConnectionResetError("the client is gone")
                    await call.http.writer.drain()
        except errors.ApiError as error:
            # The head has gone out: the error goes as the last event, which ends the watch for the client.
            await response.write(framing("ERROR", json_bytes(error.to_status())))
        await response.write_eof()
    return response


async def _stream_websocket(
    call: Call, events: AsyncIterator[Events], transform: Transform | None
) -> web.StreamResponse:
    protocols = [
        name.strip()
        for name in call.http.headers.get("Sec-WebSocket-Protocol", "").split(",")
        if name.strip() and not name.strip().startswith("base64url.bearer.")
    ]
    socket = web.WebSocketResponse(protocols=protocols, autoping=True)
    async with ending_with(call, events):
        await socket.prepare(call.http)
        try:
            async for batch in events:
                for message in _framed(batch, transform, line):
                    await socket.send_str(message.decode())
        except errors.ApiError as error:
            await socket.send_str(line("ERROR", json_bytes(error.to_status())).decode().rstrip("\n"))
        await socket.close()
    return socket


@contextlib.asynccontextmanager
async def ending_with(call: Call, stream: AsyncIterator[Any] | Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Close the stream (or call what closes it) in any case, and end this task when the client is gone: an idle stream
    writes nothing that would find out."""
    task = asyncio.current_task()
    assert task is not None
    forget = call.connection.on_lost(task.cancel)
    try:
        yield
    except (ConnectionError, RuntimeError) as error:
        # A write to a connection that has just closed; nobody is left to be told.
        if isinstance(error, RuntimeError) and "closing transport" not in str(error):
            raise
    finally:
        forget()
        close = stream if callable(stream) else getattr(stream, "aclose", None)
        if close is not None:
            await close()
