"""Exec, Attach and PortForward over SPDY/3.1, as upstream's kubelet and crictl ask for them.

The client opens a stream for each thing (`streamType` header). A remote command begins when all that it asked for
have come; a port forward opens a pair (`error`, `data`) for each connection, by `requestid`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri.errors import CriError
from cri.logs import log
from cri.runtime import Runtime
from cri.streaming import port_forward, remote_command
from cri.streaming.channels import V1, V4, Event, Input, InputEnd, parse_resize
from cri.streaming.http import BadRequest, Request, answer
from cri.streaming.spdy import Connection, SpdyError, Stream

_COMMAND_PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", V1)
_FORWARD_PROTOCOLS = ("portforward.k8s.io",)
# A client that has upgraded opens its streams at once.
_STREAMS_SECONDS = 30.0


def wanted(request: Request) -> bool:
    return "spdy/3.1" in [token.lower() for token in request.tokens("upgrade")]


def _negotiate(request: Request, supported: tuple[str, ...]) -> str:
    offered = request.tokens("x-stream-protocol-version")
    if not offered:
        return ""
    chosen = next((name for name in offered if name in supported), "")
    if not chosen:
        raise BadRequest(f"none of the protocols {', '.join(offered)} is supported: {', '.join(supported)} are")
    return chosen


async def serve(
    runtime: Runtime,
    waiting: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest,
    request: Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    forward = isinstance(waiting, cri.PortForwardRequest)
    protocol = _negotiate(request, _FORWARD_PROTOCOLS if forward else _COMMAND_PROTOCOLS)
    headers = {"Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
    if protocol:
        headers["X-Stream-Protocol-Version"] = protocol
    writer.write(answer(101, headers))
    await writer.drain()
    connection = Connection(reader, writer)
    streams: asyncio.Queue[Stream] = asyncio.Queue()
    reading = asyncio.ensure_future(connection.run(streams.put_nowait))
    try:
        if isinstance(waiting, cri.PortForwardRequest):
            await _forward(runtime, waiting, streams, reading)
        else:
            await _command(runtime, waiting, protocol, streams, reading)
    except (ConnectionError, SpdyError) as error:
        log.info("SPDY session ended", error=str(error))
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _command(
    runtime: Runtime,
    waiting: cri.ExecRequest | cri.AttachRequest,
    protocol: str,
    streams: "asyncio.Queue[Stream]",
    reading: "asyncio.Future[None]",
) -> None:
    expected = {"error"} | {name for name in ("stdin", "stdout", "stderr") if getattr(waiting, name)}
    if waiting.tty and protocol in (V4, "v3.channel.k8s.io"):
        expected.add("resize")
    found: dict[str, Stream] = {}
    try:
        async with asyncio.timeout(_STREAMS_SECONDS):
            while expected - found.keys():
                stream = await streams.get()
                found[stream.headers.get("streamtype", "")] = stream
    except TimeoutError as error:
        raise SpdyError(f"the client opened no {', '.join(sorted(expected - found.keys()))} stream") from error
    channels = SpdyChannels(found, protocol, reading)
    if isinstance(waiting, cri.ExecRequest):
        await remote_command.run_exec(runtime, waiting, channels)
    else:
        await remote_command.run_attach(runtime, waiting, channels)


class SpdyChannels:
    """A remote command's channels as one stream each."""

    def __init__(self, streams: dict[str, Stream], protocol: str, reading: "asyncio.Future[None]") -> None:
        self._streams = streams
        self._protocol = protocol
        self._reading = reading

    async def events(self) -> AsyncIterator[Event]:
        merged: asyncio.Queue[Event] = asyncio.Queue(1)
        tasks = [
            asyncio.ensure_future(work(self._streams[name], merged))
            for name, work in (("stdin", _take_input), ("resize", _take_sizes))
            if name in self._streams
        ]
        getter: asyncio.Future[Event] | None = None
        try:
            while True:
                getter = asyncio.ensure_future(merged.get())
                await remote_command.first_of(getter, self._reading)
                if not getter.done():
                    return
                yield getter.result()
        finally:
            for future in (*tasks, *((getter,) if getter else ())):
                future.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def write(self, name: str, data: bytes) -> None:
        await self._streams[name].write(data)

    async def finish(self, status: dict[str, Any]) -> None:
        error = self._streams["error"]
        if self._protocol == V4:
            await error.write(msgspec.json.encode(status))
        elif status["status"] != "Success":
            await error.write(str(status["message"]).encode())
        for stream in self._streams.values():
            await stream.close()


async def _take_input(stream: Stream, merged: "asyncio.Queue[Event]") -> None:
    async for chunk in stream.chunks():
        await merged.put(Input(chunk))
    await merged.put(InputEnd())


async def _take_sizes(stream: Stream, merged: "asyncio.Queue[Event]") -> None:
    # Each size is one JSON object on a line; a chunk may hold several, of which the last counts.
    async for chunk in stream.chunks():
        size = parse_resize(chunk.strip().splitlines()[-1]) if chunk.strip() else None
        if size:
            await merged.put(size)


async def _forward(
    runtime: Runtime, waiting: cri.PortForwardRequest, streams: "asyncio.Queue[Stream]", reading: "asyncio.Future[None]"
) -> None:
    pairs: dict[str, dict[str, Stream]] = {}
    async with asyncio.TaskGroup() as tasks:
        running: set[asyncio.Task[None]] = set()
        while True:
            getter = asyncio.ensure_future(streams.get())
            await remote_command.first_of(getter, reading)
            if not getter.done():
                getter.cancel()
                break
            stream = getter.result()
            pair = pairs.setdefault(stream.headers.get("requestid", ""), {})
            pair[stream.headers.get("streamtype", "")] = stream
            if {"error", "data"} <= pair.keys():
                pairs.pop(stream.headers.get("requestid", ""))
                work = _forward_pair(runtime, waiting, pair["data"], pair["error"])
                task = tasks.create_task(work, name=f"port forward {stream.number}")
                running.add(task)
                task.add_done_callback(running.discard)
        for task in running:
            task.cancel()


async def _forward_pair(runtime: Runtime, waiting: cri.PortForwardRequest, data: Stream, error: Stream) -> None:
    """One connection: the client's data stream to and from a port of the pod."""
    try:
        text = data.headers.get("port", "")
        port = int(text) if text.isdigit() else 0
        try:
            reader, writer = await port_forward.connect(runtime, waiting.pod_sandbox_id, port)
        except CriError as failure:
            await error.write(str(failure).encode())
            return
        sending = asyncio.ensure_future(_send(data, writer))
        try:
            with contextlib.suppress(ConnectionError):
                await port_forward.copy(reader, data.write)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
    finally:
        with contextlib.suppress(ConnectionError):
            await data.close()
            await error.close()
        data.forget()
        error.forget()


async def _send(data: Stream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        async for chunk in data.chunks():
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
