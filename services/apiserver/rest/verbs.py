"""The resource verbs over HTTP: query and body in, handlers called, bytes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from machinery.api import errors
from services.apiserver.large import aside
from services.apiserver.request import Request
from services.apiserver.rest import bodies, negotiate, options, protobuf, responses, table
from services.apiserver.rest.context import Call
from services.apiserver.rest.discovery import not_allowed, unknown_path
from services.apiserver.rest.negotiate import PARTIAL, PARTIAL_LIST, TABLE
from services.apiserver.rest.stored_json import StoredJson, fits
from services.apiserver.rest.watching import Transform, asks_for_websocket, stream_watch

if TYPE_CHECKING:
    from services.apiserver.handlers import Handlers
    from services.apiserver.reads import ListResult
    from services.apiserver.registry.resource import Resource

# Upstream answers the deleted object itself for these, and a Status for all others.
_RETURNS_DELETED = frozenset(
    {
        "pods",
        "persistentvolumes",
        "persistentvolumeclaims",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "replicationcontrollers",
        "services",
        "namespaces",
    }
)


class Verbs:
    """Turns a parsed call into a call of a handler, and its result into an answer."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers
        self._table: dict[str, Callable[[Call, Resource], Awaitable[web.StreamResponse]]] = {
            "get": self.get,
            "list": self.list_,
            "watch": self.watch,
            "create": self.create,
            "update": self.update,
            "patch": self.patch,
            "delete": self.delete,
            "deletecollection": self.delete_collection,
        }

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """Answer a call on a resource or one of its ordinary subresources."""
        info = call.info
        if info.subresource:
            subresource = resource.subresources.get(info.subresource)
            if subresource is None:
                raise self._refusal(call, resource, unknown_path())
            allowed = subresource.verbs
        else:
            allowed = resource.verbs
        if info.namespace and not resource.namespaced and resource.plural != "namespaces":
            # A cluster-scoped object is not to be reached below a namespace (CVE-2019-11247).
            raise self._refusal(call, resource, unknown_path())
        verb = self._table.get(info.verb)
        if verb is None or info.verb not in allowed or (not info.name and info.verb in ("update", "patch")):
            raise self._refusal(call, resource, not_allowed())
        if info.verb == "create" and not info.subresource and (info.name or _needs_namespace(resource, info.namespace)):
            raise self._refusal(call, resource, not_allowed())
        if info.name and resource.namespaced and not info.namespace and info.verb not in ("list", "watch"):
            raise self._refusal(call, resource, unknown_path())
        call.deprecation = resource.deprecation
        return await verb(call, resource)

    def _allowed(self, call: Call, resource: Resource) -> Request:
        """The request of a caller who may make it: nobody else's body is read."""
        request = self.request(call, resource)
        self.handlers.authorize(request)
        return request

    def _refusal(self, call: Call, resource: Resource, error: errors.ApiError) -> errors.ApiError:
        """What to raise for a path or method that does not exist: who may not ask anyway is told only that."""
        self.handlers.authorize(self.request(call, resource))
        return error

    def request(self, call: Call, resource: Resource) -> Request:
        """The call as handlers take it."""
        info = call.info
        namespace = info.namespace if resource.namespaced else ""
        return Request(
            call.user,
            info.verb,
            resource,
            info.subresource,
            namespace,
            info.name,
            call.user_agent,
            call.connection.client_address,
            call.audit_id,
            info.path,
        )

    # -- reads --

    async def get(self, call: Call, resource: Resource) -> web.StreamResponse:
        """GET one object."""
        form = negotiate.choose(call.accept, negotiate.OBJECT_TRANSFORMS)
        version, at_revision = options.version_to_get(call.query) if call.query else ("", 0)
        request = self.request(call, resource)
        body = await self.handlers.get(request, version, at_revision)
        if form is negotiate.PLAIN:
            # Typed as what aiohttp expects; it asks no more of an answer than this one offers.
            short = fits(call.http) and not call.deprecation
            return StoredJson(call.http, body) if short else responses.json_response(body)  # type: ignore[return-value]
        body = await self._in_form(call, request, form, body)
        return responses.json_response(body, content_type=form.content_type)

    async def list_(self, call: Call, resource: Resource) -> web.StreamResponse:
        """GET a collection."""
        form = negotiate.choose(call.accept, negotiate.LIST_TRANSFORMS)
        encoding = call.http.headers.get("Accept-Encoding", "")
        request = self.request(call, resource)
        result = await self.handlers.list(request, options.list_options(call.query))
        if form is negotiate.PLAIN:
            body = _listed(call, resource, form, result)
        else:
            async with self.handlers.large.turn(request, _work(sum(map(len, result.items)))):
                body = await aside(request, _listed, call, resource, form, result)
        short = not call.deprecation and ("gzip" not in encoding or len(body) < responses.GZIP_BYTES_MIN)
        if short and form is negotiate.PLAIN and fits(call.http):
            return StoredJson(call.http, body)  # type: ignore[return-value]
        response = responses.json_response(body, content_type=form.content_type)
        return await responses.compressed(response, encoding)

    async def watch(self, call: Call, resource: Resource) -> web.StreamResponse:
        """GET with watch=true."""
        frames = not asks_for_websocket(call)
        form = negotiate.choose(call.accept, negotiate.WATCH_TRANSFORMS, protobuf=frames, stream=True)
        in_protobuf = form.media_type == negotiate.PROTOBUF
        if in_protobuf:
            protobuf.check_encodable(resource.kind.api_version, resource.kind.kind)
        watch = options.watch_options(call.query)
        await self.handlers.be_fresh(watch.resource_version)
        transform: Transform | None = None
        if form.transform == TABLE:
            transform = table.WatchTable(resource, form.version, _include(call)).event
        elif form.transform == PARTIAL:
            transform = partial(_partial_event, version=form.version)
        events = self.handlers.watch(self.request(call, resource), watch)
        return await stream_watch(call, events, transform, in_protobuf=in_protobuf)

    # -- writes --

    async def create(self, call: Call, resource: Resource) -> web.StreamResponse:
        """POST."""
        # Reviews and the like are answers, not objects to be listed: they have no table.
        form = negotiate.choose(call.accept, frozenset() if resource.virtual else negotiate.OBJECT_TRANSFORMS)
        request = self._allowed(call, resource)
        raw, kind = await call.read(), resource.body_kind(call.info.subresource).kind
        async with self.handlers.large.turn(request, len(raw)):
            document, duplicates = await aside(request, bodies.decode_object, raw, call.content_type, kind)
            write = options.write_options(call.query, call.user_agent, duplicates)
            result = await self.handlers.create(request, document, write)
        return await self._written(call, request, form, result.json, True, result.warnings)

    async def update(self, call: Call, resource: Resource) -> web.StreamResponse:
        """PUT."""
        form = negotiate.choose(call.accept, negotiate.OBJECT_TRANSFORMS)
        request = self._allowed(call, resource)
        raw, kind = await call.read(), resource.body_kind(call.info.subresource).kind
        async with self.handlers.large.turn(request, len(raw)):
            document, duplicates = await aside(request, bodies.decode_object, raw, call.content_type, kind)
            write = options.write_options(call.query, call.user_agent, duplicates, kind="UpdateOptions")
            result = await self.handlers.update(request, document, write)
        return await self._written(call, request, form, result.json, result.created, result.warnings)

    async def patch(self, call: Call, resource: Resource) -> web.StreamResponse:
        """PATCH in its four forms."""
        form = negotiate.choose(call.accept, negotiate.OBJECT_TRANSFORMS)
        request = self._allowed(call, resource)
        raw = await call.read()
        async with self.handlers.large.turn(request, len(raw)):
            patch_type, document, duplicates = await aside(request, bodies.decode_patch, raw, call.content_type)
            applied = patch_type == "apply"
            known = () if applied else duplicates
            write = options.write_options(
                call.query, call.user_agent, known, kind="PatchOptions", patch_type=patch_type
            )
            warnings = _not_strict(write.field_validation, duplicates) if applied else []
            result = await self.handlers.patch(request, patch_type, document, write)  # type: ignore[arg-type]
        return await self._written(call, request, form, result.json, result.created, [*warnings, *result.warnings])

    async def delete(self, call: Call, resource: Resource) -> web.StreamResponse:
        """DELETE one object."""
        form = negotiate.choose(call.accept, negotiate.OBJECT_TRANSFORMS)
        request = self._allowed(call, resource)
        wanted = options.delete_options(call.query, await _options_body(call))
        result = await self.handlers.delete(request, wanted)
        status = 200
        if not result.gone and (wanted.orphan_dependents is False or wanted.propagation_policy == "Foreground"):
            status = 202
        if result.gone and not (resource.plural in _RETURNS_DELETED and not resource.group):
            success = responses.success_status(resource.group, resource.plural, call.info.name, result.uid)
            body = responses.represented(success, form.media_type)
        else:
            body = await self._in_form(call, request, form, result.json)
        return responses.json_response(body, status, content_type=form.content_type)

    async def delete_collection(self, call: Call, resource: Resource) -> web.StreamResponse:
        """DELETE what selectors choose."""
        request, selected = self.request(call, resource), options.list_options(call.query)
        # Before the body is read, and with the selector: a node may delete what is selected as its own.
        self.handlers.authorize(request, selected.field_selector)
        wanted = options.delete_options(call.query, await _options_body(call))
        results = await self.handlers.delete_collection(request, selected, wanted)
        revision = max((result.revision for result in results), default=0)
        body = responses.list_bytes(
            responses.list_kind(resource.kind.kind),
            resource.kind.api_version,
            [result.json for result in results],
            revision,
            "",
            None,
        )
        return responses.json_response(body)

    async def _written(
        self,
        call: Call,
        request: Request,
        form: negotiate.Representation,
        body: bytes,
        created: bool,
        warnings: Sequence[str],
    ) -> web.StreamResponse:
        status = 201 if created else 200
        if form is negotiate.PLAIN and not warnings and not call.deprecation and fits(call.http):
            return StoredJson(call.http, body, status)  # type: ignore[return-value]
        body = await self._in_form(call, request, form, body)
        return responses.json_response(body, status, content_type=form.content_type, warnings=warnings)

    async def _in_form(self, call: Call, request: Request, form: negotiate.Representation, body: bytes) -> bytes:
        """An object's JSON in the form that the client takes."""
        async with self.handlers.large.turn(request, _work(len(body))):
            return await aside(request, _transformed, call, request.resource, form, body)


READ_BYTES_MAX = 1024 * 1024
"""What a read counts for at most among the large requests: it holds nothing of its own while it waits, and takes less
than a write of as many bytes."""


def _work(size: int) -> int:
    return min(size, READ_BYTES_MAX)


def _transformed(call: Call, resource: Resource, form: negotiate.Representation, body: bytes) -> bytes:
    if form.transform == TABLE:
        body = table.table_of_object(resource, form.version, body, _include(call), call.info.subresource)
    elif form.transform == PARTIAL:
        body = table.partial(body, form.version)
    return responses.represented(body, form.media_type)


def _listed(call: Call, resource: Resource, form: negotiate.Representation, result: ListResult) -> bytes:
    if form.transform == TABLE:
        body = table.table_of_list(resource, form.version, result, _include(call))
    elif form.transform == PARTIAL_LIST:
        items = [table.partial(item, form.version) for item in result.items]
        body = responses.list_bytes(
            PARTIAL, f"meta.k8s.io/{form.version}", items, result.revision, result.continue_token, result.remaining
        ).replace(b'"PartialObjectMetadata"', b'"PartialObjectMetadataList"', 1)
    else:
        body = responses.list_bytes(
            responses.list_kind(resource.kind.kind),
            resource.kind.api_version,
            result.items,
            result.revision,
            result.continue_token,
            result.remaining,
        )
    return responses.represented(body, form.media_type)


def _not_strict(field_validation: str, duplicates: Sequence[str]) -> list[str]:
    """Warnings of the keys that an apply patch has twice. Raises BadRequest for Strict: which of two values applies is
    nothing that field management could tell."""
    if not duplicates or field_validation == "Ignore":
        return []
    text = "error converting YAML to JSON: yaml: unmarshal errors:"
    if field_validation == "Strict":
        raise errors.BadRequest("\n  ".join((f"error strict decoding YAML: {text}", *duplicates)))
    return [" ".join((text, "; ".join(duplicates)))]


def _partial_event(body: bytes, _event_type: str, *, version: str) -> bytes:
    return table.partial(body, version)


def _needs_namespace(resource: Resource, namespace: str) -> bool:
    return resource.namespaced and not namespace


def _include(call: Call) -> str:
    return options.first(call.query, "includeObject") or "Metadata"


async def _options_body(call: Call) -> dict[str, object] | None:
    if not call.http.can_read_body:
        return None
    raw = await call.read()
    if not raw:
        return None
    return bodies.decode_options(raw, call.content_type)
