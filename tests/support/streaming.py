"""Clients of a runtime's streaming URLs: remote commands by WebSocket and SPDY, port forwards by both."""

import asyncio
import contextlib
import json
import struct
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from cri.streaming import spdy

CHANNELS = {0: "stdin", 1: "stdout", 2: "stderr", 3: "error", 4: "resize"}


class Result:
    def __init__(self) -> None:
        self.output: dict[str, bytearray] = {name: bytearray() for name in CHANNELS.values()}

    @property
    def stdout(self) -> bytes:
        return bytes(self.output["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self.output["stderr"])

    @property
    def exit_code(self) -> int | None:
        status = json.loads(bytes(self.output["error"]) or b"{}")
        if status.get("status") == "Success":
            return 0
        causes = status.get("details", {}).get("causes", [])
        return next((int(cause["message"]) for cause in causes if cause["reason"] == "ExitCode"), None)


async def command_by_websocket(
    url: str, *, stdin: bytes | None = None, size: tuple[int, int] | None = None, protocol: str = "v4.channel.k8s.io"
) -> Result:
    result = Result()
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=(protocol,), max_msg_size=0) as ws:
        if size:
            await ws.send_bytes(b"\x04" + json.dumps({"Width": size[0], "Height": size[1]}).encode())
        if stdin is not None:
            for start in range(0, len(stdin), 16384):
                await ws.send_bytes(b"\x00" + stdin[start : start + 16384])
            if protocol.startswith("v5"):
                await ws.send_bytes(b"\xff\x00")
        async for message in ws:
            if message.data:
                result.output[CHANNELS[message.data[0]]] += message.data[1:]
    return result


class SpdyClient:
    """The client's side of a SPDY/3.1 session, enough for remote commands and port forwards."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = spdy.HeaderCodec()
        self._next = 1
        self.received: dict[int, bytearray] = {}
        self.ended: dict[int, asyncio.Event] = {}

    @classmethod
    async def connect(cls, url: str, protocol: str) -> "SpdyClient":
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
        )
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer.split(b"\r\n")[0]:
            writer.close()
            raise ConnectionError(answer.decode())
        return cls(reader, writer)

    async def open(self, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        self.received[number], self.ended[number] = bytearray(), asyncio.Event()
        block = self._codec.encode(headers)
        self._writer.write(spdy.control(spdy.SYN_STREAM, struct.pack("!IIH", number, 0, 0) + block))
        await self._writer.drain()
        return number

    async def send(self, number: int, data: bytes, *, fin: bool = False) -> None:
        for start in range(0, len(data), 16384):
            self._writer.write(spdy.data_frame(number, data[start : start + 16384]))
            await self._writer.drain()
        if fin:
            self._writer.write(spdy.data_frame(number, b"", fin=True))
            await self._writer.drain()

    async def read(self) -> None:
        """Takes frames until the server closes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame = await spdy.read_frame(self._reader)
                if frame.kind == 0:
                    self.received.setdefault(frame.stream, bytearray()).extend(frame.payload)
                    if frame.flags & spdy.FLAG_FIN and frame.stream in self.ended:
                        self.ended[frame.stream].set()
                elif frame.kind == spdy.SYN_REPLY:
                    self._codec.decode(frame.payload[4:])
                elif frame.kind == spdy.PING:
                    self._writer.write(spdy.control(spdy.PING, frame.payload))
                elif frame.kind == spdy.GOAWAY:
                    break
        for event in self.ended.values():
            event.set()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def command_by_spdy(
    url: str, *, stdin: bytes | None = None, size: tuple[int, int] | None = None, stderr: bool = True
) -> Result:
    client = await SpdyClient.connect(url, "v4.channel.k8s.io")
    names = ["error", *(["stdin"] if stdin is not None else []), "stdout", *(["stderr"] if stderr else [])]
    if size:
        names.append("resize")
    numbers: dict[str, int] = {}
    reading = asyncio.ensure_future(client.read())
    try:
        for name in names:
            numbers[name] = await client.open(streamtype=name)
        if size:
            await client.send(numbers["resize"], json.dumps({"Width": size[0], "Height": size[1]}).encode() + b"\n")
        if stdin is not None:
            await client.send(numbers["stdin"], stdin, fin=True)
        for name in ("error", "stdout"):
            await client.ended[numbers[name]].wait()
    finally:
        reading.cancel()
        await client.close()
    result = Result()
    for name, number in numbers.items():
        result.output[name] = client.received[number]
    return result


async def forward_by_spdy(url: str, port: int, payload: bytes) -> tuple[bytes, bytes]:
    """One connection: sends the payload, reads to the end; returns (data, error)."""
    client = await SpdyClient.connect(url, "portforward.k8s.io")
    reading: asyncio.Future[Any] = asyncio.ensure_future(client.read())
    error = await client.open(streamtype="error", port=str(port), requestid="0")
    await client.send(error, b"", fin=True)
    data = await client.open(streamtype="data", port=str(port), requestid="0")
    await client.send(data, payload, fin=True)
    await client.ended[data].wait()
    await client.ended[error].wait()
    await client.close()
    reading.cancel()
    return bytes(client.received[data]), bytes(client.received[error])
