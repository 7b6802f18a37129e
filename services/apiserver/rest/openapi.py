"""/openapi/v3 and /openapi/v2: what kubectl explains, validates and merges by.

The schemas are the definitions that the server itself validates with, in OpenAPI's dialect; the paths are made from
the registry, so that custom resources are in them as soon as they are served. A document is built when it is first
asked for and kept until the registry changes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from machinery.api import errors
from services.apiserver.rest import openapi_paths, openapi_protobuf, responses
from services.apiserver.rest.backends import RemoteDocuments
from services.apiserver.rest.negotiate import JSON
from services.apiserver.rest.openapi_schemas import Dialect, SchemaSet

if TYPE_CHECKING:
    from services.apiserver.rest.context import Call
    from services.apiserver.rest.served import ServedRegistry

_INFO = {"title": "Kubernetes", "version": "v1.37.1"}
_SECURITY = {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}}
_IMMUTABLE = "public, immutable, max-age=31536000"


class OpenApi:
    """Serves the documents."""

    def __init__(self, registry: ServedRegistry, remote: RemoteDocuments | None = None) -> None:
        self._registry = registry
        # What other servers say of the groups that are handed to them.
        self._remote = remote or RemoteDocuments()
        self._merged = 0
        self._documents: dict[str, tuple[bytes, str]] = {}
        self._lock = asyncio.Lock()
        registry.on_change(self._documents.clear)

    async def answer(self, call: Call) -> web.Response | None:
        """The document at the call's path, or None if there is none."""
        path = call.info.path.rstrip("/")
        if self._merged != self._remote.generation:
            self._merged = self._remote.generation
            self._documents.clear()
        if path == "/openapi/v3":
            body = responses.json_bytes({"paths": {**self._remote.index(), **self._index()}})
            return await self._respond(call, body, _etag(body), {})
        if path == "/openapi/v2":
            if openapi_protobuf.wanted(call.accept):
                body, etag = await self._cached("v2.pb", self._version_2_protobuf)
                return await self._respond(call, body, etag, {}, openapi_protobuf.MEDIA_TYPE)
            _refuse_protobuf_only(call)
            return await self._respond(call, *await self._cached("v2", self._version_2), {})
        name = path.removeprefix("/openapi/v3/")
        group_version = self._group_version(name)
        if name == path or group_version is None:
            return None
        _refuse_protobuf_only(call)
        body, etag = await self._cached(name, lambda: self._version_3(*group_version))
        headers = {"Cache-Control": _IMMUTABLE} if "hash" in call.query else {}
        return await self._respond(call, body, etag, headers)

    async def _respond(
        self, call: Call, body: bytes, etag: str, headers: dict[str, str], content_type: str = JSON
    ) -> web.Response:
        if call.http.headers.get("If-None-Match", "").strip('"') == etag:
            return web.Response(status=304, headers={"ETag": f'"{etag}"'})
        response = responses.json_response(body, content_type=content_type)
        response.headers.update({"ETag": f'"{etag}"', "Vary": "Accept", **headers})
        return await responses.compressed(response, call.http.headers.get("Accept-Encoding", ""))

    async def _cached(self, key: str, build: Callable[[], dict[str, Any] | bytes]) -> tuple[bytes, str]:
        """One builder at a time; it works off the loop, because the largest document takes a good part of a second."""
        async with self._lock:
            found = self._documents.get(key)
            if found is None:
                body = await asyncio.to_thread(_built, build)
                found = self._documents[key] = (body, _etag(body))
            return found

    # -- the index --

    def _index(self) -> dict[str, dict[str, str]]:
        paths = {}
        for group in self._registry.groups():
            for version in self._registry.versions(group):
                name = f"apis/{group}/{version}" if group else f"api/{version}"
                mark = self._mark(group, version)
                paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={mark}"}
        return paths

    def _mark(self, group: str, version: str) -> str:
        """Changes when the document does: built-in ones change with the release, others with their definition."""
        rows = self._registry.in_version(group, version)
        parts = [_INFO["version"], group, version, *(row.plural for row in rows)]
        parts += [repr(getattr(row.custom, "schema", "")) for row in rows if row.custom is not None]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest().upper()

    def _group_version(self, name: str) -> tuple[str, str] | None:
        parts = name.split("/")
        group, version = ("", parts[-1]) if parts[0] == "api" else ("/".join(parts[1:-1]), parts[-1])
        known = len(parts) == (2 if parts[0] == "api" else 3) and version in self._registry.versions(group)
        return (group, version) if known else None

    # -- the documents --

    def _version_3(self, group: str, version: str) -> dict[str, Any]:
        schemas = SchemaSet(Dialect.V3)
        paths: dict[str, Any] = {}
        for resource in self._registry.in_version(group, version):
            paths.update(openapi_paths.paths_of(resource, schemas))
        return {
            "openapi": "3.0.0",
            "info": _INFO,
            "paths": paths,
            "components": {"schemas": schemas.collected(), "securitySchemes": _SECURITY},
            "security": [{"BearerToken": []}],
        }

    def _version_2_protobuf(self) -> bytes:
        return openapi_protobuf.encode(self._version_2())

    def _version_2(self) -> dict[str, Any]:
        schemas = SchemaSet(Dialect.V2)
        paths: dict[str, Any] = {}
        for resource in list(self._registry.all()):
            paths.update(openapi_paths.paths_of(resource, schemas))
        document = {
            "swagger": "2.0",
            "info": _INFO,
            "paths": paths,
            "definitions": schemas.collected(),
            "securityDefinitions": _SECURITY,
            "security": [{"BearerToken": []}],
        }
        self._remote.merge_into(document)
        return document


def _built(build: Callable[[], dict[str, Any] | bytes]) -> bytes:
    document = build()
    return document if isinstance(document, bytes) else responses.json_bytes(document)


def _refuse_protobuf_only(call: Call) -> None:
    accept = call.accept
    if accept and "json" not in accept and "*" not in accept:
        raise errors.NotAcceptable("only the following media types are accepted: application/json")


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest().upper()
