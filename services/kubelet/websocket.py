"""A WebSocket client (RFC 6455) just large enough for a runtime's streaming server.

No extensions, binary frames, no framework.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import ssl
from urllib.parse import urlsplit

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MESSAGE_BYTES_MAX = 32 << 20
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


class WebSocketError(Exception):
    """The server refused the upgrade or broke the protocol."""


class WebSocket:
    """An open connection. `protocol` is the subprotocol that the server chose."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: str) -> None:
        self._reader = reader
        self._writer = writer
        self.protocol = protocol

    @classmethod
    async def connect(cls, url: str, protocols: list[str]) -> WebSocket:
        """Open `url` (http, https, ws or wss). Raises WebSocketError, OSError."""
        parts = urlsplit(url)
        secure = parts.scheme in ("https", "wss")
        context: ssl.SSLContext | None = None
        if secure:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        host = parts.hostname or "127.0.0.1"
        reader, writer = await asyncio.open_connection(host, parts.port or (443 if secure else 80), ssl=context)
        key = base64.b64encode(os.urandom(16)).decode()
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {', '.join(protocols)}\r\nOrigin: http://{parts.netloc}\r\n\r\n".encode()
        )
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise WebSocketError("the streaming server closed the connection") from error
        status, *lines = head.split("\r\n")
        headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
        expected = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
        if " 101 " not in f"{status} " or headers.get("sec-websocket-accept") != expected:
            body = await reader.read(2048)
            writer.close()
            raise WebSocketError(f"{status}: {body.decode(errors='replace').strip()}")
        return cls(reader, writer, headers.get("sec-websocket-protocol", ""))

    async def send(self, data: bytes) -> None:
        """Send one binary message."""
        await self._send_frame(_BINARY, data)

    async def _send_frame(self, opcode: int, data: bytes) -> None:
        size = len(data)
        head = bytearray([0x80 | opcode])
        if size < 126:
            head.append(0x80 | size)
        elif size < 1 << 16:
            head.append(0x80 | 126)
            head += size.to_bytes(2, "big")
        else:
            head.append(0x80 | 127)
            head += size.to_bytes(8, "big")
        mask = os.urandom(4)
        self._writer.write(bytes(head) + mask + _masked(data, mask))
        await self._writer.drain()

    async def receive(self) -> bytes | None:
        """The next message; None when the connection is over."""
        message = b""
        while True:
            try:
                opcode, final, data = await self._read_frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if opcode == _PING:
                await self._send_frame(_PONG, data)
            elif opcode == _CLOSE:
                return None
            elif opcode in (_CONTINUATION, _TEXT, _BINARY):
                message += data
                if len(message) > _MESSAGE_BYTES_MAX:
                    raise WebSocketError("message too large")
                if final:
                    return message

    async def _read_frame(self) -> tuple[int, bool, bytes]:
        first, second = await self._reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self._reader.readexactly(8), "big")
        if size > _MESSAGE_BYTES_MAX:
            raise WebSocketError("frame too large")
        mask = await self._reader.readexactly(4) if second & 0x80 else b""
        data = await self._reader.readexactly(size)
        return first & 0x0F, bool(first & 0x80), _masked(data, mask) if mask else data

    async def close(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._send_frame(_CLOSE, (1000).to_bytes(2, "big"))
        self._writer.close()


def _masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one operation on large integers."""
    if not data:
        return b""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")
