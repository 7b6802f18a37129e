"""Port-forward: TCP connections that begin inside a pod's network namespace, carried by numbered frames."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import AsyncIterator

from protos.cutaway.v1 import stream_pb2

_CLONE_NEWNET = 0x40000000
_CONNECT_SECONDS = 10
_CHUNK_BYTES = 32 * 1024
_QUEUE_MAX = 64
_libc = ctypes.CDLL(None, use_errno=True)
Frame = stream_pb2.PortForwardFrame


def connect_inside(namespace: str, port: int) -> socket.socket:
    """A connection to `localhost:port` in the network namespace behind the path. Raises OSError.

    A thread of its own enters the namespace, opens the socket and ends: a socket stays in the namespace where it was
    made, and no other work ever runs on a thread that is elsewhere.
    """
    result: list[socket.socket | OSError] = []

    def work() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, f"setns: {os.strerror(number)}")
            finally:
                os.close(fd)
            result.append(_connect_local(port))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=work, name=f"port-forward {port}")
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def _connect_local(port: int) -> socket.socket:
    last: OSError | None = None
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(_CONNECT_SECONDS)
            connection.connect((host, port))
        except OSError as error:
            last = last or error
            with contextlib.suppress(UnboundLocalError):
                connection.close()
        else:
            connection.setblocking(False)
            return connection
    assert last is not None
    raise last


class PortForwarder:
    """One session: any number of connections, numbered by the caller."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Bounded: a caller that reads slowly slows the pod's connections, not this process's memory.
        self._out: asyncio.Queue[Frame | None] = asyncio.Queue(_QUEUE_MAX)

    async def run(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
        """Carry frames both ways until the caller leaves."""
        inward = asyncio.ensure_future(self._inward(frames))
        try:
            while (frame := await self._out.get()) is not None:
                yield frame
        finally:
            inward.cancel()
            for task in self._tasks.values():
                task.cancel()
            for writer in self._writers.values():
                writer.close()

    async def _inward(self, frames: AsyncIterator[Frame]) -> None:
        try:
            async for frame in frames:
                kind = frame.WhichOneof("frame")
                number = frame.connection
                if kind == "open_port":
                    await self._open(number, frame.open_port)
                elif kind == "data":
                    await self._write(number, frame.data)
                elif kind == "closed":
                    self._half_close(number)
        finally:
            with contextlib.suppress(asyncio.QueueFull):
                if not self._tasks:
                    self._out.put_nowait(None)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._out.put(None)

    async def _open(self, number: int, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(None, connect_inside, self._namespace, port)
            reader, writer = await asyncio.open_connection(sock=connection)
        except OSError as error:
            text = f"error forwarding port {port} to pod: {error.strerror or error}"
            await self._out.put(Frame(connection=number, error=text))
            return
        self._writers[number] = writer
        self._tasks[number] = asyncio.ensure_future(self._outward(number, reader))

    async def _write(self, number: int, data: bytes) -> None:
        writer = self._writers.get(number)
        if writer is not None:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()

    def _half_close(self, number: int) -> None:
        writer = self._writers.get(number)
        if writer is not None and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()

    async def _outward(self, number: int, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await self._out.put(Frame(connection=number, data=data))
        except ConnectionError as error:
            await self._out.put(Frame(connection=number, error=str(error)))
        await self._out.put(Frame(connection=number, closed=True))
        writer = self._writers.pop(number, None)
        if writer is not None:
            writer.close()
        self._tasks.pop(number, None)
