"""The REST server: every request comes through `RestServer.handle`.

    who (certificate or token) -> acting as (impersonation) -> how many at once -> what (resource or path) -> answer

Errors of any step become a `Status`. What an answer says is decided by the handlers; this file only leads there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import operator
import random
import ssl
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from machinery.api import errors
from machinery.api.objects import now_rfc3339_micro
from machinery.component import logs
from machinery.component.tls import TlsFiles
from services.apiserver import go_text
from services.apiserver.auth.attributes import Attributes, denied
from services.apiserver.auth.authenticate import ANONYMOUS, Authenticator
from services.apiserver.auth.impersonation import impersonated
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.flow.control import FlowControl
from services.apiserver.request import User
from services.apiserver.rest import metrics_api, paths, responses
from services.apiserver.rest.aggregation import Aggregator
from services.apiserver.rest.connect import Connector
from services.apiserver.rest.connection import HANDSHAKE_SECONDS_MAX, Connection, Server, make_server
from services.apiserver.rest.context import Call
from services.apiserver.rest.deadlines import Deadlines
from services.apiserver.rest.discovery import VERSION, Discovery, not_allowed, unknown_path
from services.apiserver.rest.flow import CountObjects, Turns
from services.apiserver.rest.health import Check, Health
from services.apiserver.rest.metrics_api import MetricsApi
from services.apiserver.rest.openapi import OpenApi
from services.apiserver.rest.served import ServedRegistry
from services.apiserver.rest.stored_json import StoredJson
from services.apiserver.rest.verbs import Verbs

if TYPE_CHECKING:
    from services.apiserver.handlers import Handlers
    from services.apiserver.kubelet_proxy import KubeletProxy
    from services.apiserver.rest.auditing import RestAuditor

log = logs.get("rest")

# Upstream's --request-timeout.
REQUEST_SECONDS_MAX = 60
_BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
# A watch has its own timeout, and a get waits for nothing.
_UNTIMED = frozenset({"watch", "get"})


class RestServer:
    """The HTTPS front over one set of handlers."""

    def __init__(
        self,
        handlers: Handlers,
        authenticator: Authenticator,
        authorizer: Authorizer,
        *,
        kubelets: KubeletProxy | None = None,
        live_checks: Mapping[str, Check] | None = None,
        ready_checks: Mapping[str, Check] | None = None,
        metrics: Callable[[], bytes] | None = None,
        auditor: RestAuditor | None = None,
        flow: FlowControl | None = None,
        count_objects: CountObjects | None = None,
        front_proxy: TlsFiles | None = None,
    ) -> None:
        self.health = Health(live_checks or {}, ready_checks or {})
        self._handlers = handlers
        self._registry = ServedRegistry(handlers.registry, metrics_api.rows() if kubelets is not None else ())
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._verbs = Verbs(handlers)
        self._discovery = Discovery(self._registry)
        self._metrics_api = None if kubelets is None else MetricsApi(handlers, self._verbs, kubelets)
        self._connector = Connector(handlers, self._verbs, kubelets)
        self._aggregator: Aggregator | None = None
        if kubelets is not None and self._connector.proxy is not None:
            self._aggregator = Aggregator(handlers, kubelets, self._connector.proxy, front_proxy)
        self._openapi = OpenApi(self._registry, self._aggregator.documents if self._aggregator is not None else None)
        self._checking: asyncio.Task[None] | None = None
        self._metrics = metrics
        self._auditor = auditor
        self._flow = flow or FlowControl()
        self._turns = Turns(self._flow, count_objects or (lambda *_: 1))
        self._deadlines = Deadlines(REQUEST_SECONDS_MAX)
        self._server: asyncio.Server | None = None
        self._http: Server | None = None

    # -- life --

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None) -> int:
        """Listen. Returns the port (of use with port 0). Raises OSError if it is taken."""
        loop = asyncio.get_running_loop()
        if ssl_context is not None:
            ssl_context.set_alpn_protocols(["http/1.1"])
        self._http = make_server(self.handle)
        if self._aggregator is not None:
            self._checking = loop.create_task(self._aggregator.run(), name="check aggregated APIs")
        self._server = await loop.create_server(
            self._http, host or "0.0.0.0", port, ssl=ssl_context, backlog=1024, reuse_address=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX if ssl_context is not None else None,
        )  # fmt: skip
        return int(self._server.sockets[0].getsockname()[1])

    async def leave(self, seconds: float) -> None:
        """Say not ready, and go on serving for so long; connections end with their next answer."""
        self.health.stopping = True
        await asyncio.sleep(seconds)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Say not ready, take no new connections, let requests end, then close; watches end at once."""
        self.health.stopping = True
        if self._checking is not None:
            self._checking.cancel()
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            for connection in self._http.connections:
                if isinstance(connection, Connection):
                    connection.end_streams()
            self._http.pre_shutdown()
            await self._http.shutdown(grace_seconds)
        await self._connector.close()
        if self._auditor is not None:
            self._auditor.close()

    # -- one request --

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        audit_id = _audit_id(http.headers.get("Audit-ID"))
        call: Call | None = None
        try:
            path, query = paths.split_target(http.raw_path)
            call = Call(http, paths.parse(http.method, path, query), query, ANONYMOUS, audit_id)
            if self._auditor is not None:
                call.received = now_rfc3339_micro()
            call.user = await self._user(http)
            if _impersonates(http):
                call.authenticated = call.user
                call.user = impersonated(call.user, http.headers.items(), self._authorizer)
            response = await self._turns.run(call, self._answer)
        except errors.ApiError as error:
            response = responses.status_response(error)
        except web.HTTPRequestEntityTooLarge:
            response = responses.status_response(errors.RequestTooLarge("Request entity too large: limit is 3145728"))
            response.force_close()
        except TimeoutError:
            message = "Timeout: request did not complete within the allotted timeout"
            response = responses.status_response(errors.Timeout(message))
        except web.HTTPException as error:
            response = responses.status_response(errors.BadRequest(error.reason))
        except (web.RequestPayloadError, ConnectionError) as error:
            response = responses.status_response(errors.BadRequest(f"the body could not be read: {error}"))
        except Exception as error:
            if errors.is_nesting(error):
                response = responses.status_response(errors.BadRequest("the object is nested too deeply"))
            else:
                log.exception("request failed", method=http.method, path=http.raw_path, audit_id=audit_id)
                response = responses.status_response(
                    errors.InternalError(f"Internal error occurred: see the server's log, audit id {audit_id}")
                )
        flow = call.flow if call is not None else None
        if isinstance(response, StoredJson):
            response.audit_id = audit_id
            if self.health.stopping:
                response.keep_alive = False
            if flow is not None:
                response.flow_head = flow.head
        elif not response.prepared:
            response.headers["Audit-Id"] = audit_id
            if self.health.stopping:
                response.force_close()
            if flow is not None:
                response.headers.update(flow.headers)
            if call is not None and call.deprecation:
                response.headers.add("Warning", responses.warning_header(call.deprecation))
        if self._auditor is not None and call is not None:
            self._auditor.completed(call, response.status, getattr(response, "body", None))
        connection = http.protocol
        if isinstance(connection, Connection):
            connection.ends(response)
        return response

    async def _user(self, http: web.BaseRequest) -> User:
        """Who asks. A certificate counts before a token; a token that proves nothing is refused, not ignored."""
        connection = http.protocol
        assert isinstance(connection, Connection)
        if connection.certificate_der is not None:
            user = self._authenticator.from_certificate(connection.certificate_der)
            if user is None:
                raise errors.Unauthorized("Unauthorized")
            return user
        header = http.headers.get("Authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() == "bearer" and token.strip():
                return await self._authenticator.from_token(token.strip())
            raise errors.Unauthorized("Unauthorized")
        protocols = http.headers.get("Sec-WebSocket-Protocol")
        if protocols and _BEARER_PROTOCOL in protocols:
            return await self._authenticator.from_token(_websocket_token(protocols))
        return ANONYMOUS

    async def _answer(self, call: Call) -> web.StreamResponse:
        info = call.info
        if not info.is_resource:
            return await self._answer_path(call)
        remote = self._remote(info.group, info.version)
        if remote is not None and self._aggregator is not None:
            self._require(_attributes(call))
            return await self._aggregator.serve(call, remote)
        try:
            resource = self._registry.resolve(info.group, info.version, info.resource)
        except errors.NotFound:
            # Whoever may not even ask is told that, not what exists.
            self._require(_attributes(call))
            raise
        if info.prefix_verb == "proxy":
            raise unknown_path()
        if self._connector.serves(resource, info.subresource):
            return await self._connector.serve(call, resource)
        if self._metrics_api is not None and resource.group == metrics_api.GROUP:
            return await self._metrics_api.serve(call, resource)
        seconds = _timeout(call) if info.verb != "watch" else REQUEST_SECONDS_MAX
        if info.verb in _UNTIMED:
            return await self._verbs.serve(call, resource)
        if seconds < REQUEST_SECONDS_MAX:
            async with asyncio.timeout(seconds):
                return await self._verbs.serve(call, resource)
        with self._deadlines.limit(call.http.task):
            return await self._verbs.serve(call, resource)

    async def _answer_path(self, call: Call) -> web.StreamResponse:
        """A path that is no resource: discovery, documents, health, metrics."""
        path = call.info.path
        verb = call.info.verb
        self._require(Attributes(call.user, "get" if verb == "head" else verb, path=path))
        if verb not in ("get", "head"):
            raise not_allowed()
        _timeout(call)
        if self.health.serves(path):
            return await self.health.answer(path, call.query)
        if path in ("/version", "/version/"):
            return responses.json_response(responses.json_bytes(VERSION))
        if path.startswith("/openapi/"):
            parts = path.split("/")
            remote = self._remote(*parts[4:6]) if path.startswith("/openapi/v3/apis/") and len(parts) == 6 else None
            if remote is not None and self._aggregator is not None:
                return await self._aggregator.serve(call, remote)
            response = await self._openapi.answer(call)
            if response is not None:
                return response
        tokens = self._authenticator.tokens
        if tokens is not None and path == "/.well-known/openid-configuration":
            host = call.http.headers.get("Host", "")
            document = tokens.openid_configuration(f"https://{host}/openid/v1/jwks")
            return responses.json_response(responses.json_bytes(document))
        if tokens is not None and path == "/openid/v1/jwks":
            body = responses.json_bytes(tokens.jwks())
            return responses.json_response(body, content_type="application/jwk-set+json")
        if path == "/metrics" and self._metrics is not None:
            self._flow.observe()
            return responses.text_response(self._metrics().decode())
        if path in ("", "/"):
            return responses.json_response(responses.json_bytes({"paths": self._root_paths()}))
        if self._aggregator is not None and path.startswith("/apis"):
            parts = path.strip("/").split("/")
            remote = self._remote(*parts[1:]) if len(parts) == 3 else None
            if remote is not None:
                return await self._aggregator.serve(call, remote)
            if len(parts) == 2 and parts[1] not in self._registry.groups():
                group = self._aggregator.group(parts[1])
                if group is not None:
                    return group
        extended = self._aggregator is not None and path.rstrip("/") == "/apis" and self._aggregator.any()
        response = self._discovery.answer(call, whole=extended)
        if response is None:
            raise unknown_path()
        if extended and self._aggregator is not None:
            return self._aggregator.extended(response, aggregated="as=" in response.headers["Content-Type"])
        return response

    def _remote(self, group: str, version: str) -> Mapping[str, Any] | None:
        """The APIService of another server that answers for this group and version. What is stored here, is served
        here.
        """
        if self._aggregator is None or not group:
            return None
        if group != metrics_api.GROUP and self._registry.serves(group, version):
            return None
        return self._aggregator.find(group, version)

    def _require(self, attrs: Attributes) -> None:
        decision = self._authorizer.authorize(attrs)
        if not decision.allowed:
            raise denied(attrs, decision.reason)

    def _root_paths(self) -> list[str]:
        served = ["/api", "/api/v1", "/apis"]
        for group in self._registry.groups():
            if group:
                served.append(f"/apis/{group}")
                served += [f"/apis/{group}/{version}" for version in self._registry.versions(group)]
        return sorted([*served, *self.health.paths(), "/metrics", "/openapi/v2", "/openapi/v3", "/version"])


def _audit_id(given: str | None) -> str:
    """The id that a request is known by: the caller's if it fits, else one in the form of a UUID that no other has."""
    if given and len(given) <= 64 and given.isprintable() and given.isascii():
        return given
    return f"{_AUDIT_PREFIX}{next(_audit_numbers):012x}"


# Of this process; what follows counts its requests.
_AUDIT_PREFIX = str(uuid.uuid4())[:24]
_audit_numbers = itertools.count(random.getrandbits(40))


def _impersonates(http: web.BaseRequest) -> bool:
    """Whether a header of the request says as whom it is to be judged."""
    headers = http.raw_headers
    if _USUAL_HEADERS.issuperset(map(_NAME_OF, headers)):
        return False
    return any(name[:12].lower() == b"impersonate-" for name, _ in headers)


_NAME_OF = operator.itemgetter(0)
# What most requests have nothing besides.
_USUAL_HEADERS = frozenset(
    spelling.encode()
    for name in ("Host", "User-Agent", "Authorization", "Accept", "Accept-Encoding", "Content-Type", "Content-Length")
    for spelling in (name, name.lower())
)


def _attributes(call: Call) -> Attributes:
    info = call.info
    return Attributes(
        call.user, info.verb, info.group, info.version, info.resource, info.subresource, info.namespace, info.name
    )


def _timeout(call: Call) -> float:
    """How long a request may take: the client's wish up to ours. Raises BadRequest for what is no duration."""
    wish = call.query.get("timeout") if call.query else None
    if not wish or not wish[0]:
        return REQUEST_SECONDS_MAX
    try:
        seconds = go_text.duration_seconds(wish[0])
    except ValueError as error:
        raise errors.BadRequest(f"invalid timeout specified in the request URL - {error}") from error
    return seconds if 0 < seconds < REQUEST_SECONDS_MAX else REQUEST_SECONDS_MAX


def _websocket_token(protocols: str) -> str:
    """The bearer token that browsers send as a subprotocol, because they can't set headers."""
    for name in protocols.split(","):
        name = name.strip()
        if name.startswith(_BEARER_PROTOCOL):
            encoded = name[len(_BEARER_PROTOCOL) :]
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise errors.Unauthorized("Unauthorized") from error
    raise errors.Unauthorized("Unauthorized")
