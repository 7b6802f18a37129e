"""exec and attach over WebSocket: one byte says which stream a message belongs to (the `channel.k8s.io` protocols).

    0 stdin   1 stdout   2 stderr   3 error (a Status, at the end)   4 resize ({"Width": …, "Height": …})   255 close
    (v5)

v5 adds the message [255, n]: stream n is closed. Without it a program that reads to the end of its stdin never finds
one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator

import msgspec
from aiohttp import WSMsgType, web

from machinery.api import errors
from protos.cutaway.v1 import stream_pb2
from services.apiserver.rest.responses import json_bytes

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
)
MESSAGE_BYTES_MAX = 4 * 1024 * 1024


class _Size(msgspec.Struct):
    width: int = msgspec.field(name="Width", default=0)
    height: int = msgspec.field(name="Height", default=0)


def parse_size(data: bytes) -> stream_pb2.TerminalSize | None:
    """A resize message; None if it makes no sense."""
    try:
        size = msgspec.json.decode(data, type=_Size)
    except msgspec.MsgspecError:
        return None
    if not (0 < size.width < 65536 and 0 < size.height < 65536):
        return None
    return stream_pb2.TerminalSize(width=size.width, height=size.height)


class ChannelSocket:
    """A WebSocket that carries an exec session."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        protocol = socket.ws_protocol or ""
        self._base64 = "base64" in protocol
        self._has_status = protocol[:2] in ("v4", "v5")

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel."""
        if self._base64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes((channel,)) + data)

    async def frames(self, start: stream_pb2.ExecStart) -> AsyncIterator[stream_pb2.ExecInput]:
        """What the client sends, as the kubelet takes it; the start comes first."""
        yield stream_pb2.ExecInput(start=start)
        async for message in self._socket:
            data = self._decode(message.data) if message.type in (WSMsgType.BINARY, WSMsgType.TEXT) else b""
            if not data:
                continue
            channel, payload = data[0], data[1:]
            if channel == STDIN and start.stdin and payload:
                yield stream_pb2.ExecInput(stdin=payload)
            elif channel == CLOSE and payload[:1] == b"\x00":
                yield stream_pb2.ExecInput(stdin_closed=True)
            elif channel == RESIZE:
                size = parse_size(payload)
                if size is not None:
                    yield stream_pb2.ExecInput(resize=size)

    def _decode(self, data: bytes | str) -> bytes:
        if not self._base64:
            return data.encode() if isinstance(data, str) else data
        text = data if isinstance(data, str) else data.decode("ascii", "ignore")
        try:
            return bytes((int(text[0]),)) + base64.b64decode(text[1:])
        except (ValueError, IndexError, binascii.Error):
            return b""

    async def run(self, start: stream_pb2.ExecStart, outputs: AsyncIterator[stream_pb2.ExecOutput]) -> None:
        """Send what the container writes, then its status, then close."""
        # An empty message tells the client that the session stands, before the program has written anything.
        await self.send(STDOUT if start.stdout else STDERR if start.stderr else ERROR, b"")
        status = b""
        try:
            async for output in outputs:
                kind = output.WhichOneof("frame")
                if kind == "stdout":
                    await self.send(STDOUT, output.stdout)
                elif kind == "stderr":
                    await self.send(STDERR, output.stderr)
                elif kind == "status":
                    status = output.status
        except errors.ApiError as error:
            status = json_bytes(error.to_status())
        if self._has_status:
            await self.send(ERROR, status or json_bytes(SUCCESS))
        elif status and msgspec.json.decode(status).get("status") != "Success":
            await self.send(ERROR, str(msgspec.json.decode(status).get("message", "")).encode())
        await self._socket.close()


SUCCESS = {"metadata": {}, "status": "Success"}
