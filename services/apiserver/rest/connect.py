"""Subresources that lead into the cluster: log, exec, attach, portforward and proxy.

They are judged like any other (`create` on pods/exec, also when the client upgrades by GET) and then handed to the
kubelet proxy.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from machinery.api import errors
from protos.cutaway.v1 import stream_pb2
from services.apiserver.request import Request
from services.apiserver.rest import responses
from services.apiserver.rest.channels import MESSAGE_BYTES_MAX, PROTOCOLS, ChannelSocket
from services.apiserver.rest.context import Call
from services.apiserver.rest.discovery import not_allowed
from services.apiserver.rest.options import first, number
from services.apiserver.rest.paths import is_true
from services.apiserver.rest.proxy import Proxy
from services.apiserver.rest.tunnel import TUNNEL_PROTOCOL, serve_tunnel
from services.apiserver.rest.watching import ending_with

if TYPE_CHECKING:
    from services.apiserver.handlers import Handlers
    from services.apiserver.kubelet_proxy import KubeletProxy
    from services.apiserver.registry.resource import Resource
    from services.apiserver.rest.verbs import Verbs

_STREAMS = frozenset({"log", "exec", "attach", "portforward"})
_PROXIED = frozenset({"pods", "services", "nodes"})
_PROXIED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# The protocols of a log over WebSocket: bytes as they are, or in base64.
_LOG_PROTOCOLS = ("binary.k8s.io", "base64.binary.k8s.io")


class Connector:
    """Serves the streams of pods."""

    def __init__(self, handlers: Handlers, verbs: Verbs, kubelets: KubeletProxy | None) -> None:
        self._handlers = handlers
        self._verbs = verbs
        self._kubelets = kubelets
        self.proxy = Proxy(kubelets) if kubelets is not None else None

    async def close(self) -> None:
        """Close what is open towards the cluster."""
        if self.proxy is not None:
            await self.proxy.close()

    def serves(self, resource: Resource, subresource: str) -> bool:
        """Whether this subresource is a stream or a proxy."""
        if resource.group or not subresource:
            return False
        return (subresource in _STREAMS and resource.plural == "pods") or (
            subresource == "proxy" and resource.plural in _PROXIED
        )

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """Open the stream."""
        info = call.info
        if info.subresource == "proxy":
            return await self._serve_proxy(call, resource)
        if info.verb not in ("get", "create") or (info.subresource == "log" and info.verb != "get"):
            raise not_allowed()
        request: Request = self._verbs.request(call, resource)
        if info.subresource != "log":
            # Running something in a pod is a change, whichever HTTP method asks for the upgrade.
            request.verb = "create"
        self._handlers.authorize(request)
        if info.subresource != "log":
            await self._handlers.admit_connect(request, _options_object(call, resource))
        if self._kubelets is None:
            raise _no_way()
        if info.subresource == "log":
            return await self._log(call, self._kubelets)
        if info.subresource == "portforward":
            return await self._port_forward(call, self._kubelets)
        return await self._exec(call, self._kubelets)

    async def _serve_proxy(self, call: Call, resource: Resource) -> web.StreamResponse:
        if call.http.method not in _PROXIED_METHODS:
            raise not_allowed()
        request = self._verbs.request(call, resource)
        # Rights are on the object's name, without the scheme and port that the path puts around it.
        name = request.name.split(":")
        request.name = name[1] if len(name) == 3 else name[0]
        self._handlers.authorize(request)
        await self._handlers.admit_connect(request, _options_object(call, resource))
        if self.proxy is None:
            raise _no_way()
        return await self.proxy.serve(call, resource)

    # -- logs --

    async def _log(self, call: Call, kubelets: KubeletProxy) -> web.StreamResponse:
        request = _logs_request(call)
        chunks = kubelets.logs(request)
        # The first chunk decides whether there is an error to report: after that the head has gone out.
        head = await anext(chunks, None)
        if call.http.headers.get("Upgrade", "").lower() == "websocket":
            return await _log_over_websocket(call, head, chunks)
        if not request.follow and head is None:
            return responses.text_response("")
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
        response.headers["Audit-Id"] = call.audit_id
        response.enable_chunked_encoding()
        async with ending_with(call, chunks):
            await response.prepare(call.http)
            if head is not None:
                await response.write(head.data)
            try:
                async for chunk in chunks:
                    await response.write(chunk.data)
            except errors.ApiError as error:
                await response.write(f"\nerror: the log was cut off: {error.message}\n".encode())
            await response.write_eof()
        return response

    # -- exec and attach --

    async def _exec(self, call: Call, kubelets: KubeletProxy) -> web.StreamResponse:
        start = _exec_start(call)
        pod = kubelets.pod(start.namespace, start.pod)
        start.container = kubelets.container_of(pod, start.container)
        kubelets.kubelet_of(pod)
        if call.http.headers.get("Upgrade", "").lower() != "websocket":
            raise errors.BadRequest("unable to upgrade: only WebSocket is spoken here")
        socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=MESSAGE_BYTES_MAX)
        await socket.prepare(call.http)
        channels = ChannelSocket(socket)
        session = kubelets.exec if call.info.subresource == "exec" else kubelets.attach
        outputs = session(channels.frames(start))
        async with ending_with(call, outputs):
            await channels.run(start, outputs)
        return socket

    # -- port-forward --

    async def _port_forward(self, call: Call, kubelets: KubeletProxy) -> web.StreamResponse:
        pod = kubelets.pod(call.info.namespace, call.info.name)
        kubelets.kubelet_of(pod)
        if call.http.headers.get("Upgrade", "").lower() != "websocket":
            raise errors.BadRequest("unable to upgrade: only WebSocket is spoken here")
        socket = web.WebSocketResponse(protocols=(TUNNEL_PROTOCOL,), max_msg_size=MESSAGE_BYTES_MAX)
        await socket.prepare(call.http)
        await serve_tunnel(call, socket, kubelets)
        return socket


async def _log_over_websocket(
    call: Call, head: stream_pb2.Chunk | None, chunks: AsyncIterator[stream_pb2.Chunk]
) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=_LOG_PROTOCOLS)
    async with ending_with(call, chunks):
        await socket.prepare(call.http)
        encoded = socket.ws_protocol == "base64.binary.k8s.io"

        async def send(data: bytes) -> None:
            if encoded:
                await socket.send_str(base64.b64encode(data).decode())
            else:
                await socket.send_bytes(data)

        # An empty message tells the client that the log stands.
        await send(b"")
        if head is not None:
            await send(head.data)
        async for chunk in chunks:
            await send(chunk.data)
        await socket.close()
    return socket


def _options_object(call: Call, resource: Resource) -> dict[str, Any]:
    """The options of a stream as the object that admission judges: PodExecOptions, PodProxyOptions and their kin."""
    query = call.query
    options: dict[str, Any] = {"kind": resource.subresources[call.info.subresource].kind.kind, "apiVersion": "v1"}
    if call.info.subresource in ("exec", "attach"):
        options |= {name: True for name in ("stdin", "stdout", "stderr", "tty") if is_true(query, name)}
        if first(query, "container"):
            options["container"] = first(query, "container")
        if query.get("command"):
            options["command"] = list(query["command"])
    elif call.info.subresource == "portforward":
        ports = [int(port) for text in query.get("ports", ()) for port in text.split(",") if port.isdigit()]
        if ports:
            options["ports"] = ports
    elif call.info.rest:
        options["path"] = call.info.rest
    return options


def _no_way() -> errors.ServiceUnavailable:
    return errors.ServiceUnavailable("this server has no way to kubelets: no client certificate is configured")


def _logs_request(call: Call) -> stream_pb2.LogsRequest:
    query = call.query
    request = stream_pb2.LogsRequest(
        namespace=call.info.namespace,
        pod=call.info.name,
        container=first(query, "container"),
        follow=is_true(query, "follow"),
        previous=is_true(query, "previous"),
        timestamps=is_true(query, "timestamps"),
        since_time=first(query, "sinceTime"),
        stream=first(query, "stream"),
    )
    causes = []
    for parameter, field, least in (
        ("sinceSeconds", "since_seconds", 1),
        ("tailLines", "tail_lines", 0),
        ("limitBytes", "limit_bytes", 1),
    ):
        if parameter in query:
            value = number(query, parameter)
            if value < least:
                text = f"Invalid value: {value}: must be greater than or equal to {least}"
                causes.append(errors.Cause("FieldValueInvalid", text, parameter))
            setattr(request, field, max(value, 0))
    if causes:
        raise errors.invalid("", "PodLogOptions", call.info.name, causes)
    return request


def _exec_start(call: Call) -> stream_pb2.ExecStart:
    query = call.query
    start = stream_pb2.ExecStart(
        namespace=call.info.namespace,
        pod=call.info.name,
        container=first(query, "container"),
        command=list(query.get("command", ())),
        stdin=is_true(query, "stdin"),
        stdout=is_true(query, "stdout"),
        stderr=is_true(query, "stderr"),
        tty=is_true(query, "tty"),
    )
    if call.info.subresource == "exec" and not start.command:
        raise errors.BadRequest("you must specify at least one command for the container")
    if start.tty and start.stderr:
        # With a terminal there is one output stream.
        start.stderr = False
    if not (start.stdin or start.stdout or start.stderr):
        raise errors.BadRequest("you must specify at least one of stdin, stdout, stderr")
    return start
