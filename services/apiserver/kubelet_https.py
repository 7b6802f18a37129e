"""A kubelet that speaks upstream's HTTPS API and not our gRPC: its logs, sessions and statistics in our messages.

    /containerLogs/NS/POD/CONTAINER     a stream of bytes
    /exec/…  /attach/…                  SPDY/3.1, v4.channel.k8s.io: streams for error, stdin, stdout, stderr, resize
    /portForward/NS/POD                 SPDY/3.1, portforward.k8s.io: two streams, error and data, for each connection
    /stats/summary                      JSON

SPDY and not WebSocket, because over WebSocket this API can't say that stdin, or one direction of a connection, has
ended.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from machinery.api import errors
from protos.cutaway.v1 import kubelet_pb2, stream_pb2
from services.apiserver.rest import spdy

CONNECT_SECONDS_MAX = 10.0
_READ_BYTES = 64 * 1024
_REFUSAL_BYTES_MAX = 4096
_SUCCESS = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'


class HttpsKubelet:
    """One node's kubelet at "host:port". A connection for each call."""

    def __init__(self, node: str, address: str, context: ssl.SSLContext) -> None:
        self._node = node
        self._address = address
        self._context = context

    async def logs(self, request: stream_pb2.LogsRequest) -> AsyncGenerator[stream_pb2.Chunk, None]:
        """A container's log."""
        path = f"/containerLogs/{quote(request.namespace)}/{quote(request.pod)}/{quote(request.container)}"
        async with self._connection("GET", path, _log_query(request), {}) as (head, reader, _):
            async for data in _body(head, reader):
                yield stream_pb2.Chunk(data=data)

    async def exec(self, start: stream_pb2.ExecStart, frames: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Run a command in a container; `frames` are those after the start."""
        async with aclosing(self._session("exec", start, frames)) as outputs:
            async for output in outputs:
                yield output

    async def attach(self, start: stream_pb2.ExecStart, frames: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Attach to a container's main process."""
        async with aclosing(self._session("attach", start, frames)) as outputs:
            async for output in outputs:
                yield output

    async def _session(
        self, verb: str, start: stream_pb2.ExecStart, frames: AsyncIterator[stream_pb2.ExecInput]
    ) -> AsyncGenerator[stream_pb2.ExecOutput, None]:
        path = f"/{verb}/{quote(start.namespace)}/{quote(start.pod)}/{quote(start.container)}"
        flags = {
            "input": start.stdin,
            "output": start.stdout,
            "error": start.stderr and not start.tty,
            "tty": start.tty,
        }
        query = [*(("command", word) for word in start.command), *((name, "1") for name, on in flags.items() if on)]
        async with self._upgraded(path, query, "v4.channel.k8s.io") as connection:
            wanted = ["error", *(n for n, on in zip(("stdin", "stdout", "stderr"), flags.values(), strict=False) if on)]
            streams = {
                name: connection.open({"streamtype": name}) for name in [*wanted, *(["resize"] if start.tty else [])]
            }
            upward = asyncio.create_task(_type_in(connection, streams, frames), name="to the kubelet")
            try:
                status = b""
                ending = {streams[name] for name in ("error", "stdout", "stderr") if name in streams}
                names = {number: name for name, number in streams.items()}
                async for frame in connection.frames():
                    name = names.get(frame.stream) if isinstance(frame, spdy.Data | spdy.Reset) else None
                    if isinstance(frame, spdy.Data) and frame.data:
                        if name == "stdout":
                            yield stream_pb2.ExecOutput(stdout=frame.data)
                        elif name == "stderr":
                            yield stream_pb2.ExecOutput(stderr=frame.data)
                        elif name == "error":
                            status += frame.data
                    if isinstance(frame, spdy.Reset) or (isinstance(frame, spdy.Data) and frame.fin):
                        ending.discard(frame.stream)
                        if not ending:
                            break
                yield stream_pb2.ExecOutput(status=_status(status))
            finally:
                upward.cancel()
                await asyncio.wait([upward])

    async def port_forward(
        self, start: stream_pb2.PortForwardStart, frames: AsyncIterator[stream_pb2.PortForwardFrame]
    ) -> AsyncGenerator[stream_pb2.PortForwardFrame, None]:
        """Forward TCP connections into a pod."""
        path = f"/portForward/{quote(start.namespace)}/{quote(start.pod)}"
        async with self._upgraded(path, [], "portforward.k8s.io") as connection:
            forward = _Forward(connection)
            upward = asyncio.create_task(forward.send(frames), name="to the kubelet")
            try:
                async for frame in connection.frames():
                    for answer in forward.received(frame):
                        yield answer
            finally:
                upward.cancel()
                await asyncio.wait([upward])

    async def stats(self, timeout: float) -> kubelet_pb2.StatsResponse:
        """What the kubelet measures now."""
        try:
            async with asyncio.timeout(timeout), self._connection("GET", "/stats/summary", [], {}) as (head, reader, _):
                text = b"".join([data async for data in _body(head, reader)])
        except TimeoutError as error:
            raise errors.Timeout(f"the kubelet of {self._node} did not answer in time") from error
        return stats_from_summary(self._node, json.loads(text))

    # --- the connection

    @asynccontextmanager
    async def _connection(
        self, method: str, path: str, query: list[tuple[str, str]], headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Mapping[str, str], asyncio.StreamReader, asyncio.StreamWriter]]:
        """(headers of the answer, reader, writer). Raises ApiError with the kubelet's refusal."""
        host, _, port = self._address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=self._context)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            raise errors.ServiceUnavailable(f"the kubelet of {self._node} at {self._address}: {reason}") from error
        try:
            target = path + (f"?{urlencode(query)}" if query else "")
            lines = [f"{method} {target} HTTP/1.1", f"Host: {self._address}", "User-Agent: kube-apiserver"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            status, head = await _head(reader)
            if status not in (101, 200):
                text = b""
                async for data in _body(head, reader):
                    text += data
                    if len(text) > _REFUSAL_BYTES_MAX:
                        break
                raise _refusal(status, self._node, text.decode("utf-8", "replace").strip())
            yield head, reader, writer
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise errors.ServiceUnavailable(f"the kubelet of {self._node} closed the connection") from error
        finally:
            writer.close()

    @asynccontextmanager
    async def _upgraded(self, path: str, query: list[tuple[str, str]], protocol: str) -> AsyncIterator[_Spdy]:
        upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": protocol}
        headers = upgrade | {"Content-Length": "0"}
        async with self._connection("POST", path, query, headers) as (head, reader, writer):
            if head.get("upgrade", "").lower() != "spdy/3.1":
                raise errors.ServiceUnavailable(f"the kubelet of {self._node} did not begin a session")
            yield _Spdy(reader, writer)


class _Spdy:
    """A client's side of one SPDY connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = spdy.Codec()
        self._next = 1

    def open(self, headers: Mapping[str, str]) -> int:
        """Open a stream; its number."""
        number, self._next = self._next, self._next + 2
        self._writer.write(self._codec.syn(number, headers))
        return number

    async def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """Bytes on a stream; waits while the peer does not take them."""
        self._writer.write(self._codec.data(stream, data, fin=fin))
        await self._writer.drain()

    async def frames(self) -> AsyncIterator[spdy.Frame]:
        """What comes, until the peer closes. Pings are answered. Raises ServiceUnavailable."""
        try:
            while data := await self._reader.read(_READ_BYTES):
                for frame in self._codec.feed(data):
                    match frame:
                        case spdy.Ping(number=number):
                            self._writer.write(self._codec.pong(number))
                        case spdy.GoAway():
                            pass
                        case _:
                            yield frame
        except spdy.ProtocolError as error:
            raise errors.ServiceUnavailable(f"the kubelet's session broke: {error}") from error


class _Forward:
    """The connections of one port-forward session: their numbers here and their streams there."""

    def __init__(self, connection: _Spdy) -> None:
        self._spdy = connection
        self._data: dict[int, int] = {}
        self._by_stream: dict[int, tuple[int, str]] = {}

    async def send(self, frames: AsyncIterator[stream_pb2.PortForwardFrame]) -> None:
        """Carry the caller's frames to the kubelet."""
        async for frame in frames:
            kind, connection = frame.WhichOneof("frame"), frame.connection
            if kind == "open_port":
                headers = {"port": str(frame.open_port), "requestid": str(connection)}
                error = self._spdy.open({**headers, "streamtype": "error"})
                data = self._spdy.open({**headers, "streamtype": "data"})
                self._data[connection] = data
                self._by_stream |= {error: (connection, "error"), data: (connection, "data")}
                # On the error stream only the other side speaks.
                await self._spdy.send(error, b"", fin=True)
            elif kind == "data" and connection in self._data:
                await self._spdy.send(self._data[connection], frame.data)
            elif kind == "closed" and connection in self._data:
                await self._spdy.send(self._data[connection], b"", fin=True)

    def received(self, frame: spdy.Frame) -> list[stream_pb2.PortForwardFrame]:
        """What a frame of the kubelet's means for the caller."""
        if not isinstance(frame, spdy.Data | spdy.Reset) or frame.stream not in self._by_stream:
            return []
        connection, kind = self._by_stream[frame.stream]
        out = []
        if isinstance(frame, spdy.Data) and frame.data:
            told = {"error": frame.data.decode("utf-8", "replace")} if kind == "error" else {"data": frame.data}
            out.append(stream_pb2.PortForwardFrame(connection=connection, **told))
        if kind == "data" and (isinstance(frame, spdy.Reset) or frame.fin):
            out.append(stream_pb2.PortForwardFrame(connection=connection, closed=True))
        return out


async def _type_in(connection: _Spdy, streams: Mapping[str, int], frames: AsyncIterator[stream_pb2.ExecInput]) -> None:
    try:
        async for frame in frames:
            kind = frame.WhichOneof("frame")
            if kind == "stdin" and "stdin" in streams:
                await connection.send(streams["stdin"], frame.stdin)
            elif kind == "stdin_closed" and "stdin" in streams:
                await connection.send(streams["stdin"], b"", fin=True)
            elif kind == "resize" and "resize" in streams:
                size = {"Width": frame.resize.width, "Height": frame.resize.height}
                await connection.send(streams["resize"], json.dumps(size).encode())
    except ConnectionError:
        return  # the reading side tells


def _status(text: bytes) -> bytes:
    if not text:
        return _SUCCESS
    try:
        json.loads(text)
    except ValueError:
        # Before the fourth version of the protocol, and where the runtime itself failed, it is a sentence.
        failed = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500}
        return json.dumps({**failed, "reason": "InternalError", "message": text.decode("utf-8", "replace")}).encode()
    return text


def _log_query(request: stream_pb2.LogsRequest) -> list[tuple[str, str]]:
    query = [(name, "true") for name in ("follow", "previous", "timestamps") if getattr(request, name)]
    for field, name in (("since_seconds", "sinceSeconds"), ("tail_lines", "tailLines"), ("limit_bytes", "limitBytes")):
        if request.HasField(field):
            query.append((name, str(getattr(request, field))))
    for field, name in (("since_time", "sinceTime"), ("stream", "stream")):
        if getattr(request, field):
            query.append((name, getattr(request, field)))
    return query


def _refusal(status: int, node: str, text: str) -> errors.ApiError:
    message = text or f"the kubelet of {node} answered {status}"
    kinds = {400: errors.BadRequest, 403: errors.Forbidden, 404: errors.NotFound, 504: errors.Timeout}
    return kinds.get(status, errors.ServiceUnavailable)(message)


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise errors.ServiceUnavailable("the kubelet's answer has no end of its headers") from error
    first, *lines = text.split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[1].isdecimal():
        raise errors.ServiceUnavailable("the kubelet's answer is not HTTP")
    return int(words[1]), {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}


async def _body(head: Mapping[str, str], reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The bytes of an answer: chunked, counted, or until the connection closes."""
    if head.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            while size:
                data = await reader.read(min(size, _READ_BYTES))
                if not data:
                    raise asyncio.IncompleteReadError(b"", size)
                size -= len(data)
                yield data
            await reader.readexactly(2)
        return
    left = int(head["content-length"]) if "content-length" in head else -1
    while left and (data := await reader.read(min(left, _READ_BYTES) if left > 0 else _READ_BYTES)):
        left -= len(data) if left > 0 else 0
        yield data


def stats_from_summary(node: str, summary: Mapping[str, Any]) -> kubelet_pb2.StatsResponse:
    """Upstream's summary as our statistics."""
    out = kubelet_pb2.StatsResponse(node=node, usage=_usage(summary.get("node") or {}))
    for pod in summary.get("pods") or ():
        named = pod["podRef"]
        stats = out.pods.add(namespace=named["namespace"], name=named["name"], uid=named["uid"], usage=_usage(pod))
        for container in pod.get("containers") or ():
            stats.containers.add(name=container["name"], usage=_usage(container))
    return out


def _usage(found: Mapping[str, Any]) -> kubelet_pb2.Usage:
    cpu, memory, network = (found.get(part) or {} for part in ("cpu", "memory", "network"))
    return kubelet_pb2.Usage(
        cpu_usage_core_nanoseconds=cpu.get("usageCoreNanoSeconds") or 0,
        cpu_usage_nanocores=cpu.get("usageNanoCores") or 0,
        memory_working_set_bytes=memory.get("workingSetBytes") or 0,
        memory_usage_bytes=memory.get("usageBytes") or 0,
        memory_rss_bytes=memory.get("rssBytes") or 0,
        network_received_bytes=network.get("rxBytes") or 0,
        network_sent_bytes=network.get("txBytes") or 0,
    )
