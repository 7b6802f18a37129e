"""A TCP proxy on loopback that can cut, delay, freeze and reset: the bad network between a client and its server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum

CHUNK = 65536


class Mode(Enum):
    """What happens to bytes."""

    PASS = "pass"
    # Each piece comes later.
    DELAY = "delay"
    # Nothing comes through, and nobody is told.
    FREEZE = "freeze"
    # What the client says arrives; what the server answers does not.
    DEAF = "deaf"
    # No connection.
    CUT = "cut"


class TcpProxy:
    """`port` leads to `target`. Use as an async context manager."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.mode = Mode.PASS
        self.delay_seconds = 0.05
        self.port = 0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set(self, mode: Mode) -> None:
        """From now on; CUT ends the connections that there are."""
        self.mode = mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode is Mode.CUT:
            self.reset()

    def reset(self) -> None:
        """End every connection with a reset, as a crashed host does."""
        for writer in list(self._writers):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            if self.mode is Mode.CUT:
                return
            back, other = await asyncio.open_connection(*self.target)
            self._writers.add(other)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, other, to_client=False))
                group.create_task(self._pump(back, writer, to_client=True))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # Cancelled only at the end of everything; asyncio would print it as an error of the callback.
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool) -> None:
        while data := await reader.read(CHUNK):
            while self.mode is Mode.FREEZE or (self.mode is Mode.DEAF and to_client):
                await self._changed.wait()
            if self.mode is Mode.DELAY:
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()
        # One end has closed: so does the other.
        raise ConnectionResetError
