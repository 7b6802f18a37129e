"""The server's side of the WebSocket protocol (RFC 6455): handshake, frames, ping, close."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import Sequence

from cri.streaming.http import BadRequest, Request, answer

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MESSAGE_BYTES_MAX = 1024 * 1024
_CONTINUATION, _TEXT, BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_NORMAL_CLOSURE, _PROTOCOL_ERROR, _TOO_BIG = 1000, 1002, 1009


class ProtocolError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def wanted(request: Request) -> bool:
    return "websocket" in [token.lower() for token in request.tokens("upgrade")]


def handshake(request: Request, supported: Sequence[str]) -> tuple[bytes, str]:
    """The 101 answer and the protocol agreed on: the client's first that is supported; raises BadRequest."""
    key = request.header("sec-websocket-key")
    if request.method != "GET" or not key or request.header("sec-websocket-version") != "13":
        raise BadRequest("a WebSocket of version 13 is expected")
    offered = request.tokens("sec-websocket-protocol")
    chosen = next((name for name in offered if name in supported), "")
    if offered and not chosen:
        raise BadRequest(f"none of the protocols {', '.join(offered)} is supported: {', '.join(supported)} are")
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    if chosen:
        headers["Sec-WebSocket-Protocol"] = chosen
    return answer(101, headers), chosen


def unmask(data: bytes, mask: bytes) -> bytes:
    repeated = mask * (len(data) // 4 + 1)
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated[:size], "big")).to_bytes(size, "big") if size else b""


class WebSocket:
    """A connection after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closed = False
        self._sending = asyncio.Lock()

    async def receive(self) -> bytes | None:
        """The next message, or None after the client's close. Raises ProtocolError, ConnectionError, EOF errors."""
        parts: list[bytes] = []
        while True:
            final, opcode, data = await self._frame()
            if opcode == _CLOSE:
                await self.close()
                return None
            if opcode == _PING:
                await self._send(_PONG, data)
                continue
            if opcode == _PONG:
                continue
            if (opcode == _CONTINUATION) != bool(parts):
                raise ProtocolError(_PROTOCOL_ERROR, "fragments out of order")
            parts.append(data)
            if sum(len(part) for part in parts) > MESSAGE_BYTES_MAX:
                raise ProtocolError(_TOO_BIG, f"a message above {MESSAGE_BYTES_MAX} bytes")
            if final:
                return b"".join(parts)

    async def _frame(self) -> tuple[bool, int, bytes]:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        if length > MESSAGE_BYTES_MAX:
            raise ProtocolError(_TOO_BIG, f"a frame of {length} bytes")
        if first & 0x70 or not second & 0x80:
            raise ProtocolError(_PROTOCOL_ERROR, "a client's frame must be masked and use no extension")
        mask = await self._reader.readexactly(4)
        return bool(first & 0x80), first & 0x0F, unmask(await self._reader.readexactly(length), mask)

    async def send(self, data: bytes) -> None:
        """One binary message; returns when the client has taken enough of what was sent before."""
        await self._send(BINARY, data)

    async def _send(self, opcode: int, data: bytes) -> None:
        if self._closed:
            return
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        async with self._sending:
            self._writer.write(head + data)
            await self._writer.drain()

    async def close(self, code: int = _NORMAL_CLOSURE, reason: str = "") -> None:
        await self._send(_CLOSE, struct.pack("!H", code) + reason.encode()[:120])
        self._closed = True
