"""The kubelet's HTTPS API on port 10250, as far as tools and upstream's apiserver read it: health, metrics, pods,
usage, logs.

HTTP/1.1 straight from asyncio: a framework would be a third of the kubelet's memory. Sessions (exec, attach,
port-forward) go through the Kubelet gRPC service.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from machinery.api import errors, objects
from machinery.component import health as health_module
from machinery.component import logs, metrics, tls
from machinery.component.health import Health
from machinery.component.tls_listener import IDLE_SECONDS_MAX, TlsListener
from protos.cutaway.v1 import stream_pb2
from services.kubelet import cadvisor, http_views, own_metrics, summary
from services.kubelet.access import Access, subresources
from services.kubelet.config import KubeletConfig
from services.kubelet.node import Node
from services.kubelet.node_logs import NodeLogs
from services.kubelet.pods import Pods
from services.kubelet.runtime import RuntimeFailure, Unsupported
from services.kubelet.service import KubeletService
from services.kubelet.stats import StatsCollector
from services.kubelet.summary_source import SummarySource

log = logs.get("kubelet")

_CONNECTIONS_MAX = 200
_PHRASES = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
            405: "Method Not Allowed", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
Query = dict[str, list[str]]
Answer = tuple[int, str, bytes]


class HttpApi(TlsListener):
    """Serves until stopped."""

    def __init__(
        self,
        config: KubeletConfig,
        health: Health,
        node: Node,
        pods: Pods,
        stats: StatsCollector,
        service: KubeletService,
        access: Access,
    ) -> None:
        super().__init__(config.serving, connections_max=_CONNECTIONS_MAX)
        self._config = config
        self._health = health
        self._node = node
        self._pods = pods
        self._stats = stats
        self._node_logs = NodeLogs(config.system_logs_dir, node.name)
        self._source = SummarySource(node, pods, stats)
        self._service = service
        self._access = access
        # path -> (what of the node it is, as upstream's authorizer names it; the handler)
        self._paths: dict[str, Callable[[Query], Awaitable[Answer]]] = {
            "/metrics": self._metrics,
            "/metrics/resource": self._resource_metrics,
            "/metrics/cadvisor": self._cadvisor_metrics,
            "/stats/summary": self._summary,
            "/pods": self._pod_list,
            "/pods/": self._pod_list,
            "/runningpods": self._running_pods,
            "/runningpods/": self._running_pods,
            "/configz": self._configz,
        }

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: tls.Identity | None
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        async with asyncio.timeout(IDLE_SECONDS_MAX):
            head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields if f)}
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        close = has_body or version == "HTTP/1.0" or "close" in headers.get("connection", "").lower()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        try:
            if identity is None and scheme.lower() == "bearer":
                identity = await self._access.of_token(token.strip())
                if identity is not None:
                    self._proven()
            parts = urlsplit(target)
            query = parse_qs(parts.query, keep_blank_values=True)
            if parts.path.startswith("/containerLogs/"):
                # Upstream's own word for it (`proxy`): who may read the node's logs may not read those of all its pods.
                await self._judge(identity, "get", parts.path)
                await self._send_log(writer, parts.path, query)
                return False
            if method == "GET" and (parts.path == "/logs" or parts.path.startswith("/logs/")):
                await self._judge(identity, "get", parts.path)
                path = unquote(parts.path.removeprefix("/logs"))
                await _send(writer, *await self._node_logs.answer(path, query))
                return False
            status, kind, body = await self._answer(method, parts.path, query, identity)
        except errors.ApiError as error:
            status, kind, body = error.code, "text/plain; charset=utf-8", (error.message + "\n").encode()
        except Exception as error:
            log.error("request failed", path=target, exc_info=error)
            status, kind, body = 500, "text/plain", b"internal error, see the log\n"
        writer.write(_head(status, kind, f"content-length: {len(body)}", close=close))
        writer.write(b"" if method == "HEAD" else body)
        async with asyncio.timeout(IDLE_SECONDS_MAX):
            await writer.drain()
        return not close

    async def _judge(self, identity: tls.Identity | None, verb: str, path: str) -> None:
        if identity is None:
            raise errors.Unauthorized("Unauthorized")
        refusal = await self._access.refusal_of_all(identity, verb, subresources(path))
        if refusal:
            raise errors.Forbidden(f'Forbidden (user "{identity.name}"): {refusal}')

    async def _answer(self, method: str, path: str, query: Query, identity: tls.Identity | None) -> Answer:
        if method == "POST" and path.startswith("/checkpoint/"):
            await self._judge(identity, "create", path)
            return await self._checkpoint(path, query)
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"only GET and HEAD\n"
        # Those who look after processes ask for these two; upstream's own path is for whom the apiserver lets.
        if path == "/healthz":
            await self._judge(identity, "get", path)
        if path in ("/healthz", "/livez", "/readyz"):
            outcomes = self._health.ready() if path == "/readyz" else self._health.live()
            well, text = health_module.report(path[1:], outcomes, verbose="verbose" in query)
            return (200 if well else 503), "text/plain; charset=utf-8", text.encode()
        found = self._paths.get(path)
        await self._judge(identity, "get", path)
        if found is None:
            return 404, "text/plain", b"404 page not found\n"
        return await found(query)

    # --- paths

    async def _metrics(self, _query: Query) -> Answer:
        own_metrics.observe(self._node.name, self._pods.workers.values())
        return 200, metrics.CONTENT_TYPE, metrics.exposition()

    async def _cadvisor_metrics(self, _query: Query) -> Answer:
        try:
            descriptors, found = await self._node.runtime.metrics()
        except Unsupported:
            return 200, metrics.CONTENT_TYPE, cadvisor.plain(await self._stats.response()).encode()
        usage = self._stats.node_usage()
        return 200, metrics.CONTENT_TYPE, cadvisor.exposition(descriptors, found, usage).encode()

    async def _configz(self, _query: Query) -> Answer:
        return 200, "application/json", msgspec.json.encode(http_views.configz(self._config))

    async def _running_pods(self, _query: Query) -> Answer:
        return 200, "application/json", msgspec.json.encode(http_views.running_pods(self._pods.workers.values()))

    async def _checkpoint(self, path: str, query: Query) -> Answer:
        """`POST /checkpoint/NAMESPACE/POD/CONTAINER`: the state of a running container into a file of this node."""
        parts = path.removeprefix("/checkpoint/").split("/")
        worker = self._pods.get(parts[0], parts[1]) if len(parts) == 3 else None
        if worker is None:
            return 404, "text/plain", b"pod does not exist\n"
        record = next((c for c in worker.runtime.running if c.name == parts[2]), None)
        if record is None:
            return 404, "text/plain", f"container {parts[2]} does not exist\n".encode()
        timeout = (query.get("timeout") or ["0"])[-1]
        if not timeout.isdigit():
            return 404, "text/plain", b"cannot parse value of timeout parameter\n"
        directory = self._node.root / "checkpoints"
        directory.mkdir(mode=0o700, exist_ok=True)
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        target = directory / f"checkpoint-{parts[1]}_{parts[0]}-{parts[2]}-{at}.tar"
        try:
            await self._node.runtime.checkpoint(record.id, str(target), int(timeout))
        except RuntimeFailure as error:
            text = f"checkpointing of {parts[0]}/{parts[1]}/{parts[2]} failed ({error.message})\n"
            return 500, "text/plain", text.encode()
        return 200, "application/json", msgspec.json.encode({"items": [str(target)]})

    async def _resource_metrics(self, _query: Query) -> Answer:
        return 200, metrics.CONTENT_TYPE, summary.resource_metrics(await self._stats.response()).encode()

    async def _summary(self, query: Query) -> Answer:
        body = await self._source.summary(only_cpu_and_memory=query.get("only_cpu_and_memory") == ["true"])
        return 200, "application/json", msgspec.json.encode(body)

    async def _pod_list(self, _query: Query) -> Answer:
        items = []
        for worker in self._pods.workers.values():
            pod = objects.to_dict(worker.pod)
            pod["status"] = worker.status
            items.append(pod)
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        return 200, "application/json", msgspec.json.encode(body)

    # --- logs

    async def _send_log(self, writer: asyncio.StreamWriter, path: str, query: Query) -> None:
        """`/containerLogs/NAMESPACE/POD/CONTAINER` with the options of the pods/log subresource."""
        parts = path.removeprefix("/containerLogs/").split("/")
        if len(parts) != 3 or not all(parts):
            raise errors.BadRequest("expected /containerLogs/NAMESPACE/POD/CONTAINER")
        chunks = self._service.log_chunks(log_request(parts[0], parts[1], parts[2], query))
        await _send(writer, "text/plain", chunks)


async def _send(writer: asyncio.StreamWriter, kind: str, chunks: AsyncIterator[bytes]) -> None:
    """An answer whose length is not known."""
    first = await anext(chunks, b"")  # so that an error is still an answer of its own
    writer.write(_head(200, kind, "transfer-encoding: chunked", close=True))
    await _write_chunk(writer, first)
    await _write_chunks(writer, chunks)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _write_chunks(writer: asyncio.StreamWriter, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await _write_chunk(writer, chunk)


async def _write_chunk(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    if chunk:
        writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await writer.drain()


def log_request(namespace: str, pod: str, container: str, query: Query) -> stream_pb2.LogsRequest:
    """The LogsRequest that a query string means. Raises BadRequest."""

    def flag(name: str) -> bool:
        return (query.get(name) or [""])[0].lower() in ("true", "1")

    def number(name: str) -> int | None:
        text = (query.get(name) or [""])[0]
        if not text:
            return None
        if not text.isdigit():
            raise errors.BadRequest(f"{name}: {text!r} is not a non-negative number")
        return int(text)

    return stream_pb2.LogsRequest(
        namespace=namespace,
        pod=pod,
        container=container,
        follow=flag("follow"),
        previous=flag("previous"),
        timestamps=flag("timestamps"),
        since_seconds=number("sinceSeconds"),
        since_time=(query.get("sinceTime") or [""])[0],
        tail_lines=number("tailLines"),
        limit_bytes=number("limitBytes"),
        stream=(query.get("stream") or [""])[0],
    )


def _head(status: int, kind: str, length: str, *, close: bool) -> bytes:
    text = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}\r\ncontent-type: {kind}\r\n{length}\r\n"
    text += "x-content-type-options: nosniff\r\n" + ("connection: close\r\n" if close else "") + "\r\n"
    return text.encode("latin-1")
