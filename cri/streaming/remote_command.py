"""Exec and Attach sessions: a process's streams to and from one client.

A slow client of Exec slows its command (the fifo fills); a slow client of Attach is cut off, because the container
and its log must not wait for a spectator.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri.container_io import ContainerIO, InputStream, OutputStream
from cri.errors import CriError, FailedPrecondition
from cri.exec_process import executed
from cri.runtime import Runtime
from cri.streaming.channels import Channels, Input, InputEnd, Resize, failure, success

_HIGH_BYTES, _LOW_BYTES = 512 * 1024, 128 * 1024
_ATTACH_BYTES_MAX = 4 * 1024 * 1024
# Output of a background child after the command has ended is not waited for longer.
_DRAIN_SECONDS = 2.0


class Outbox:
    """What waits to be sent to one client, in order, and bounded."""

    def __init__(self, channels: Channels, *, patient: bool) -> None:
        self._channels = channels
        self._patient = patient
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._bytes = 0
        self._paused: list[OutputStream] = []
        self._streams: list[tuple[OutputStream, Callable[[bytes | None], None]]] = []
        self.overrun = asyncio.Event()

    def follow(self, stream: OutputStream) -> None:
        def listener(chunk: bytes | None) -> None:
            if chunk is None:
                return
            self._bytes += len(chunk)
            self._queue.put_nowait((stream.name, chunk))
            if self._patient and self._bytes > _HIGH_BYTES:
                stream.pause()
                self._paused.append(stream)
            elif not self._patient and self._bytes > _ATTACH_BYTES_MAX:
                stream.listeners.discard(listener)
                self.overrun.set()

        stream.listeners.add(listener)
        self._streams.append((stream, listener))

    def unfollow(self) -> None:
        for stream, listener in self._streams:
            stream.listeners.discard(listener)

    async def run(self) -> None:
        """Sends for ever."""
        while True:
            name, chunk = await self._queue.get()
            await self._channels.write(name, chunk)
            self._bytes -= len(chunk)
            self._queue.task_done()
            if self._paused and self._bytes < _LOW_BYTES:
                paused, self._paused = self._paused, []
                for stream in paused:
                    stream.resume()

    async def wait_empty(self) -> None:
        await self._queue.join()


async def _feed(
    channels: Channels,
    stdin: InputStream | None,
    end_input: Callable[[], Awaitable[None]],
    resize: Callable[[int, int], Awaitable[None]],
) -> None:
    """Takes what the client sends, until it has gone."""
    async for event in channels.events():
        if isinstance(event, Input) and stdin:
            await stdin.write(event.data)
        elif isinstance(event, InputEnd):
            await end_input()
        elif isinstance(event, Resize):
            await resize(event.width, event.height)


async def run_exec(runtime: Runtime, request: cri.ExecRequest, channels: Channels) -> None:
    """Runs the command for this client; ends it when the client goes first."""
    try:
        container = runtime.store.containers.get(request.container_id)
        async with executed(runtime, container, request.cmd, tty=request.tty, stdin=request.stdin) as process:
            outbox = Outbox(channels, patient=True)
            for name, stream in process.io.outputs.items():
                if getattr(request, name):
                    outbox.follow(stream)
            await process.start()
            sender = asyncio.ensure_future(outbox.run())
            feeder = asyncio.ensure_future(_feed(channels, process.io.stdin, process.close_stdin, process.resize))
            try:
                await first_of(process.exit_code, feeder, sender)
                if not process.exit_code.done():
                    return  # the client has gone
                await _flush(process.io, outbox, sender)
                code = process.exit_code.result()
                message = f"command terminated with non-zero exit code: exit status {code}"
                await channels.finish(success() if code == 0 else failure(message, code))
            finally:
                await _cancel(sender, feeder)
    except CriError as error:
        await channels.finish(failure(str(error)))


async def _flush(io: ContainerIO, outbox: Outbox, sender: "asyncio.Future[None]") -> None:
    """Waits for the rest of the output to be read and sent."""
    await io.wait_ended(_DRAIN_SECONDS)
    empty = asyncio.ensure_future(outbox.wait_empty())
    await first_of(empty, sender)
    await _cancel(empty)


async def run_attach(runtime: Runtime, request: cri.AttachRequest, channels: Channels) -> None:
    """Shows a running container's streams until it ends or the client goes. The container goes on."""
    try:
        container = runtime.store.containers.get(request.container_id)
        io = container.io
        if io is None:
            raise FailedPrecondition(f"container {container.id} does not run")
    except CriError as error:
        await channels.finish(failure(str(error)))
        return

    async def end_input() -> None:
        # Only a container that asked for it loses its input with the first client.
        if container.config.stdin_once and io.stdin:
            io.stdin.close()
            with contextlib.suppress(CriError):
                await runtime.containerd.tasks.CloseIO(api.tasks.CloseIORequest(container_id=container.id, stdin=True))

    async def resize(width: int, height: int) -> None:
        change = api.tasks.ResizePtyRequest(container_id=container.id, width=width, height=height)
        with contextlib.suppress(CriError):
            await runtime.containerd.tasks.ResizePty(change)

    outbox = Outbox(channels, patient=False)
    for name, stream in io.outputs.items():
        if getattr(request, name):
            outbox.follow(stream)
    sender = asyncio.ensure_future(outbox.run())
    feeder = asyncio.ensure_future(_feed(channels, io.stdin if request.stdin else None, end_input, resize))
    ended = asyncio.ensure_future(container.exited.wait())
    overrun = asyncio.ensure_future(outbox.overrun.wait())
    try:
        await first_of(ended, feeder, sender, overrun)
        if overrun.done():
            await channels.finish(failure("the client reads too slowly: attach again, or read the log"))
        elif ended.done():
            await _flush(io, outbox, sender)
            await channels.finish(success())
        elif request.stdin:
            await end_input()
    finally:
        outbox.unfollow()
        await _cancel(sender, feeder, ended, overrun)


async def first_of(*futures: "asyncio.Future[Any]") -> None:
    """Waits until one of them is done; cancels none."""
    await asyncio.wait(set(futures), return_when=asyncio.FIRST_COMPLETED)


async def _cancel(*futures: "asyncio.Future[Any]") -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
