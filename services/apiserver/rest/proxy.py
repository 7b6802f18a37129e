"""pods/proxy, services/proxy and nodes/proxy: HTTP and WebSocket through the apiserver to something in the cluster.

    /api/v1/namespaces/a/pods/[https:]web[:8080]/proxy/path?query

Where a request goes is read from the cluster's state only: an object's status can name loopback or link-local
addresses or an apiserver's, and those are never followed (CVE-2022-3294). Redirects are passed on, not followed; the
caller's credentials stay here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from yarl import URL

from machinery.api import errors
from machinery.component.tls import client_context
from services.apiserver.rest.context import Call
from services.apiserver.rest.watching import ending_with

if TYPE_CHECKING:
    from services.apiserver.kubelet_proxy import KubeletProxy
    from services.apiserver.registry.resource import Resource

CONNECT_SECONDS_MAX = 30
_CHUNK_BYTES = 64 * 1024
_HTML_BYTES_MAX = 4 * 1024 * 1024
# Meant for this hop alone, or proof of who the caller is: neither goes on.
_NOT_FORWARDED = frozenset(
    [
        "authorization",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_HTML_LINK = re.compile(rb"""(\b(?:href|src|action|data|cite|background)\s*=\s*["'])(/[^"'>]*)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Backend:
    """Where to connect, and by which TLS."""

    scheme: str
    host: str
    port: int
    context: ssl.SSLContext | None = None
    # The name that the certificate must have, where it is not the address.
    server_hostname: str | None = None


class Proxy:
    """Finds the back end of a proxy path and carries the exchange."""

    def __init__(self, kubelets: KubeletProxy) -> None:
        self._kubelets = kubelets
        self._session: aiohttp.ClientSession | None = None
        self._kubelet_context: ssl.SSLContext | None = None

    async def close(self) -> None:
        """Close connections to back ends."""
        if self._session is not None:
            await self._session.close()

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """Carry one request. The caller has been authorized."""
        rest = _rest_of(call, namespaced=resource.namespaced)
        if rest is None:
            # Relative links in the answer need the slash.
            path, _, query = call.http.raw_path.partition("?")
            location = f"{path}/?{query}" if query else f"{path}/"
            return web.Response(status=301, headers={"Location": location})
        backend = self._backend(resource.plural, call.info.namespace, call.info.name)
        self.refuse(backend.host, backend.port)
        url = URL.build(scheme=backend.scheme, host=backend.host, port=backend.port).join(URL(rest, encoded=True))
        if url.host != backend.host or url.port != backend.port:
            raise errors.BadRequest("the path leads to another host")
        return await self.carry(call, backend, url, (), _prefix_of(call))

    async def carry(
        self, call: Call, backend: Backend, url: URL, headers: Iterable[tuple[str, str]], prefix: str = ""
    ) -> web.StreamResponse:
        """Send the request to `url` with more headers; `prefix` is put before the answer's own links."""
        forwarded = [*_forwarded_headers(call), *headers]
        if call.http.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(call, backend, url, forwarded)
        return await self._http(call, backend, url, forwarded, prefix)

    # -- where --

    def refuse(self, host: str, port: int) -> None:
        """Raise BadRequest for what is this machine's alone, and for the apiservers: what they would be sent comes with
        an apiserver's certificate (CVE-2021-25737, CVE-2022-3294)."""
        refuse_private(host)
        own = self._kubelets.objects("endpoints", "default", "kubernetes") or {}
        service = self._kubelets.objects("services", "default", "kubernetes") or {}
        address = ipaddress.ip_address(host)
        address = getattr(address, "ipv4_mapped", None) or address
        ends = [
            (entry["ip"], known["port"])
            for subset in own.get("subsets") or ()
            for entry in subset.get("addresses") or ()
            for known in subset.get("ports") or ()
        ]
        ends += [
            (ip, known["port"])
            for ip in (service.get("spec") or {}).get("clusterIPs") or ()
            for known in service["spec"].get("ports") or ()
        ]
        if any(port == number and ipaddress.ip_address(ip) == address for ip, number in ends):
            raise errors.BadRequest("address not allowed: it is an apiserver's")

    def _backend(self, plural: str, namespace: str, name: str) -> Backend:
        scheme, host, port = _split_name(name)
        if plural == "pods":
            return self._pod(namespace, scheme, host, port)
        if plural == "services":
            return self._service(namespace, scheme, host, port)
        return self._node(scheme, host, port)

    def _pod(self, namespace: str, scheme: str, name: str, port: str) -> Backend:
        pod = self._kubelets.pod(namespace, name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise errors.BadRequest(f"address not allowed: pod {name} has no IP address yet")
        ports = [p for c in (pod.get("spec") or {}).get("containers") or () for p in c.get("ports") or ()]
        if not port:
            number = ports[0]["containerPort"] if ports else 80
        else:
            number = _port_number(port, {p["name"]: p["containerPort"] for p in ports if p.get("name")})
        return Backend(scheme or "http", address, number, _unverified() if scheme == "https" else None)

    def _service(self, namespace: str, scheme: str, name: str, port: str) -> Backend:
        service = self._kubelets.objects("services", namespace, name)
        if service is None:
            raise errors.not_found("", "services", name)
        ports = (service.get("spec") or {}).get("ports") or []
        chosen = [p for p in ports if port in (p.get("name"), str(p.get("port")))] if port else ports
        if not chosen or (not port and len(ports) > 1):
            raise errors.ServiceUnavailable(f'no service port "{port}" found for service "{name}"')
        endpoints = self._kubelets.objects("endpoints", namespace, name) or {}
        candidates = [
            (address["ip"], endpoint["port"])
            for subset in endpoints.get("subsets") or ()
            for endpoint in subset.get("ports") or ()
            if endpoint.get("name", "") == chosen[0].get("name", "")
            for address in subset.get("addresses") or ()
        ]
        if not candidates:
            raise errors.ServiceUnavailable(f'no endpoints available for service "{name}"')
        host, number = random.choice(candidates)  # noqa: S311  # spreading load, not keeping a secret
        return Backend(scheme or "http", host, number, _unverified() if scheme == "https" else None)

    def _node(self, scheme: str, name: str, port: str) -> Backend:
        host, _, kubelet_port = self._kubelets.address_of(name).https.rpartition(":")
        host = host.strip("[]")
        if port and port != kubelet_port:
            number = _port_number(port, {})
            return Backend(scheme or "http", host, number, _unverified() if scheme == "https" else None)
        if self._kubelet_context is None:
            self._kubelet_context = client_context(self._kubelets.tls)
        return Backend("https", host, int(kubelet_port), self._kubelet_context)

    # -- the exchange --

    def client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX)
            traces = aiohttp.TraceConfig()
            traces.on_request_redirect.append(_refuse_redirect)
            self._session = aiohttp.ClientSession(
                timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[traces]
            )
        return self._session

    async def _http(
        self, call: Call, backend: Backend, url: URL, headers: list[tuple[str, str]], prefix: str
    ) -> web.StreamResponse:
        http = call.http
        body = http.content if http.can_read_body else None
        try:
            async with self.client().request(
                http.method,
                url,
                data=body,
                headers=headers,
                ssl=backend.context or True,
                server_hostname=backend.server_hostname,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as answer:
                return await _relay(call, answer, prefix)
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise errors.ServiceUnavailable(f"error trying to reach service: {error}") from error

    async def _websocket(
        self, call: Call, backend: Backend, url: URL, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        asked = call.http.headers.get("Sec-WebSocket-Protocol", "")
        protocols = [name.strip() for name in asked.split(",") if name.strip() and "bearer" not in name]
        try:
            # The back end's answer to the upgrade is awaited first: one that refuses leaves no connection behind
            # that a client could go on to use.
            upstream = await self.client().ws_connect(
                url, protocols=protocols, headers=headers, ssl=backend.context or True,
                server_hostname=backend.server_hostname,
            )  # fmt: skip
        except (aiohttp.ClientError, TimeoutError) as error:
            raise errors.ServiceUnavailable(f"error trying to reach service: {error}") from error
        socket = web.WebSocketResponse(protocols=[upstream.protocol] if upstream.protocol else [])
        async with ending_with(call, upstream.close):
            await socket.prepare(call.http)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(socket, upstream), name="to the back end")
                group.create_task(_copy(upstream, socket), name="to the client")
        return socket


async def _refuse_redirect(_session: Any, _context: Any, params: aiohttp.TraceRequestRedirectParams) -> None:
    """aiohttp follows redirects of a WebSocket's request and offers no way to say that it must not: a back end could
    send our certificate and our caller's commands to another one (CVE-2020-8559)."""
    raise aiohttp.ClientError(f"the back end answers the upgrade with a redirect ({params.response.status})")


async def _copy(source: Any, target: Any) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close()


async def _relay(call: Call, answer: aiohttp.ClientResponse, prefix: str) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in _NOT_FORWARDED:
            response.headers.add(name, value)
    location = answer.headers.get("Location", "")
    if prefix and location.startswith("/") and not location.startswith("//"):
        response.headers["Location"] = prefix + location
    html = answer.headers.get("Content-Type", "").startswith("text/html")
    if prefix and html and "Content-Encoding" not in answer.headers and (answer.content_length or 0) <= _HTML_BYTES_MAX:
        page = await answer.content.read(_HTML_BYTES_MAX)
        page = _HTML_LINK.sub(lambda match: match[1] + prefix.encode() + match[2], page)
        await response.prepare(call.http)
        await response.write(page)
    else:
        if answer.content_length is not None and call.http.method != "HEAD":
            response.content_length = answer.content_length
        await response.prepare(call.http)
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        await response.write(chunk)
    await response.write_eof()
    return response


def _forwarded_headers(call: Call) -> list[tuple[str, str]]:
    http = call.http
    headers = [
        (name, value)
        for name, value in http.headers.items()
        if name.lower() not in _NOT_FORWARDED and not name.lower().startswith(("impersonate-", "x-remote-"))
    ]
    headers.append(("X-Forwarded-For", call.connection.client_address))
    headers.append(("X-Forwarded-Uri", http.raw_path))
    headers.append(("X-Forwarded-Host", http.headers.get("Host", "")))
    headers.append(("X-Forwarded-Proto", "https"))
    return headers


def _rest_of(call: Call, *, namespaced: bool) -> str | None:
    """The path and query for the back end, as they came; None if the path ends with `proxy` without a slash."""
    path, mark, query = call.http.raw_path.partition("?")
    parts = path.split("/", 8 if namespaced else 6)
    wanted = 9 if namespaced else 7
    if len(parts) < wanted:
        return None if call.http.method in ("GET", "HEAD") else "/" + mark + query
    return "/" + parts[-1] + mark + query


def _prefix_of(call: Call) -> str:
    info = call.info
    scope = f"/namespaces/{info.namespace}" if info.namespace else ""
    return f"/api/{info.version}{scope}/{info.resource}/{info.name}/proxy"


def _split_name(name: str) -> tuple[str, str, str]:
    """(scheme, name, port) of `[scheme:]name[:port]`."""
    parts = name.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return parts[0], parts[1], parts[2]
    raise errors.BadRequest(f'invalid proxy request "{name}": it must be [http:|https:]name[:port]')


def _port_number(text: str, named: Mapping[str, int]) -> int:
    if text in named:
        return named[text]
    if text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise errors.BadRequest(f'invalid port "{text}"')


def refuse_private(host: str) -> None:
    """Raise BadRequest for addresses that belong to this machine, not to the cluster."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise errors.BadRequest(f"address not allowed: {host} is no IP address") from error
    mapped = getattr(address, "ipv4_mapped", None)
    for one in filter(None, (address, mapped)):
        if one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast:
            raise errors.BadRequest("address not allowed")


def _unverified() -> ssl.SSLContext:
    """TLS to pods: their certificates are their own affair, as upstream has it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
