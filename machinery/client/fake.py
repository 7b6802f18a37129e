"""An apiserver in memory that speaks the real gRPC contract, for unit tests of components.

    async with FakeApiServer() as server:
        client = await server.client()
        await client.create(kinds.POD, {...}, "default")

It runs in the test's own event loop on a unix socket, without TLS and without users. `server.state` is there to look
at and to change without a call; `server.intercept` sees each request first and may answer an ApiError instead; `stop`
and `start` are a restart that keeps the state. It passes the ApiServer contract tests for what it implements; server-
side apply, validation and admission it leaves to the real one.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from machinery.api import errors, objects
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.client.fake_state import Change, State, scale_of, selection
from machinery.component import grpc_errors
from protos.cutaway.v1 import apiserver_pb2, apiserver_pb2_grpc, object_pb2

CHUNK_OBJECTS = 500
VERSION = "v1.37.1"

Intercept = Callable[[str, Any], errors.ApiError | None]
"""(method name, request) to None, or the error that the call fails with.

A batch's mutations come one by one too, as "Batch.create" …
"""


def _envelope(obj: dict[str, Any], *, omit: bool = False) -> object_pb2.Object:
    metadata = obj["metadata"]
    version = metadata.get("resourceVersion", "0")
    return object_pb2.Object(
        api_version=obj["apiVersion"], kind=obj["kind"], namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""), uid=metadata.get("uid", ""), revision=int(version or 0),
        json=b"" if omit else objects.canonical_json(obj),
    )  # fmt: skip


class FakeApiServer(apiserver_pb2_grpc.ApiServerServicer):
    """See the module's docstring."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()
        self.intercept: Intercept | None = None
        self.calls: list[str] = []
        self._directory = tempfile.TemporaryDirectory(prefix="cutaway-fake-")
        self.address = f"unix:{Path(self._directory.name) / 'apiserver.sock'}"
        self._server: grpc.aio.Server | None = None
        self._clients: list[ApiClient] = []
        self._changed = asyncio.Event()
        # Bookmarks after each change, so that a test need not wait a minute to see a watch's revision move.
        self.bookmarks = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()
        await self.stop()
        self._directory.cleanup()

    async def start(self) -> None:
        """Listen."""
        self._server = grpc.aio.server(
            interceptors=[_Errors()], options=(("grpc.max_receive_message_length", 64 << 20),)
        )
        apiserver_pb2_grpc.add_ApiServerServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Cut every connection. The state stays."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def client(self, user_agent: str = "test") -> ApiClient:
        """A client, closed together with the server."""
        client = await ApiClient.connect(self.address, None, user_agent=user_agent)
        self._clients.append(client)
        return client

    def serve(self, kind: Kind) -> None:
        """Also serve a custom kind."""
        self.state.serve(kind)

    def compact(self) -> None:
        """Forget all history, and end the watches with Expired that have not caught up."""
        self.state.compact(self.state.revision + 1)

    def notify(self) -> None:
        """Wake the watches: call it after changing `state` directly."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait for the next write."""
        await self._changed.wait()

    def _enter(self, method: str, request: Any) -> None:
        self.calls.append(method)
        error = self.intercept(method, request) if self.intercept else None
        if error is not None:
            raise error

    # --- reads --------------------------------------------------------------------------------------------------------

    async def Get(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Get", request)
        kind = self.state.resolve(request.resource)
        obj = self.state.get(kind, request.namespace, request.name, at_revision=request.at_revision)
        return _envelope(scale_of(kind, obj) if request.subresource == "scale" else obj)

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """See apiserver.proto."""
        self._enter("List", request)
        kind = self.state.resolve(request.resource)
        chosen = selection(request.label_selector, request.field_selector)
        found = self.state.list(kind, request.namespace, chosen, request.at_revision)
        revision = request.at_revision or self.state.revision
        for start in range(0, max(1, len(found)), CHUNK_OBJECTS):
            items = [_envelope(obj) for obj in found[start : start + CHUNK_OBJECTS]]
            yield apiserver_pb2.ListChunk(revision=revision, items=items)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """See apiserver.proto."""
        self._enter("Watch", request)
        kind = self.state.resolve(request.resource)
        chosen = selection(request.label_selector, request.field_selector)
        if request.HasField("after_revision"):
            after = request.after_revision
            if after > self.state.revision:
                raise errors.Timeout(f"Too large resource version: {after}, current: {self.state.revision}")
        else:
            after = self.state.revision
            added = apiserver_pb2.WatchEvent.ADDED
            found = self.state.list(kind, request.namespace, chosen)
            events = [apiserver_pb2.WatchEvent(type=added, object=_envelope(obj)) for obj in found]
            yield apiserver_pb2.WatchBatch(events=events, revision=after, initial_events_end=True)
        while True:
            if after + 1 < self.state.compacted:
                raise errors.Expired(f"too old resource version: {after} ({self.state.compacted})")
            changed = self._changed
            news = [change for change in self.state.log if change.revision > after]
            after = max(after, self.state.revision)
            events = [
                event for change in news if (event := _event(change, kind, request.namespace, chosen)) is not None
            ]
            if events or (news and self.bookmarks):
                yield apiserver_pb2.WatchBatch(events=events, revision=after)
            if changed is self._changed:
                await changed.wait()

    async def Discover(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Discover", request)
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        return apiserver_pb2.DiscoverResponse(
            version=VERSION,
            resources=[
                apiserver_pb2.ServedResource(
                    resource=kind.ref, kind=kind.kind, namespaced=kind.namespaced, verbs=verbs, singular=kind.singular
                )
                for kind in self.state.served()
            ],
        )

    # --- writes -------------------------------------------------------------------------------------------------------

    async def Create(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Create", request)
        return _envelope(self._create(request))

    async def Update(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Update", request)
        return _envelope(self._update(request))

    async def Patch(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Patch", request)
        return _envelope(self._patch(request))

    async def Delete(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Delete", request)
        obj, gone = self._delete(request)
        return apiserver_pb2.DeleteResponse(object=_envelope(obj), gone=gone)

    async def DeleteCollection(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("DeleteCollection", request)
        kind = self.state.resolve(request.resource)
        chosen = selection(request.label_selector, request.field_selector)
        deleted = []
        for found in self.state.list(kind, request.namespace, chosen):
            metadata = found["metadata"]
            one = apiserver_pb2.DeleteRequest(
                resource=request.resource, namespace=metadata.get("namespace", ""), name=metadata["name"],
                options=request.options,
            )  # fmt: skip
            obj, gone = self._delete(one)
            deleted.append(apiserver_pb2.DeleteResponse(object=_envelope(obj), gone=gone))
        return apiserver_pb2.DeleteCollectionResponse(deleted=deleted)

    async def Batch(self, request: Any, context: Any) -> Any:
        """See apiserver.proto."""
        self._enter("Batch", request)
        if len(request.mutations) > 1000:
            raise errors.BadRequest("at most 1000 mutations a batch")
        response = apiserver_pb2.BatchResponse()
        for mutation in request.mutations:
            result = response.results.add()
            try:
                obj = self._mutate(mutation)
                result.object.CopyFrom(_envelope({"metadata": {}, **obj}, omit=request.omit_objects))
            except errors.ApiError as err:
                result.error.CopyFrom(grpc_errors.status_message(err))
        return response

    def _mutate(self, mutation: Any) -> dict[str, Any]:
        which = mutation.WhichOneof("mutation")
        if which is None:
            raise errors.BadRequest("an empty mutation")
        request = getattr(mutation, which)
        self._enter(f"Batch.{which}", request)
        if which == "delete":
            return self._delete(request)[0]
        apply: dict[str, Callable[[Any], dict[str, Any]]] = {
            "create": self._create, "update": self._update, "patch": self._patch,
        }  # fmt: skip
        return apply[which](request)

    def _begin(self, request: Any) -> tuple[Kind, bool]:
        if request.options.HasField("fence"):
            self.state.check_fence(request.options.fence)
        return self.state.resolve(request.resource), request.options.dry_run

    def _create(self, request: Any) -> dict[str, Any]:
        kind, dry_run = self._begin(request)
        obj = _body(request.json)
        if request.subresource:
            out = self.state.create_subresource(
                kind, request.namespace, request.name, request.subresource, obj, dry_run=dry_run
            )
        else:
            out = self.state.create(kind, request.namespace, obj, dry_run=dry_run)
        self.notify()
        return out

    def _update(self, request: Any) -> dict[str, Any]:
        kind, dry_run = self._begin(request)
        out = self.state.update(
            kind, request.namespace, request.name, _body(request.json), request.subresource, dry_run=dry_run
        )
        self.notify()
        return out

    def _patch(self, request: Any) -> dict[str, Any]:
        kind, dry_run = self._begin(request)
        out = self.state.patch(
            kind, request.namespace, request.name, request.type, request.patch, request.subresource, dry_run=dry_run
        )
        self.notify()
        return out

    def _delete(self, request: Any) -> tuple[dict[str, Any], bool]:
        kind, dry_run = self._begin(request)
        options = request.options
        grace = options.grace_period_seconds if options.HasField("grace_period_seconds") else None
        out = self.state.delete(
            kind, request.namespace, request.name, grace=grace, propagation=options.propagation_policy,
            uid=options.preconditions.uid, revision=options.preconditions.revision, dry_run=dry_run,
        )  # fmt: skip
        self.notify()
        return out


def _body(raw: bytes) -> dict[str, Any]:
    try:
        return objects.decode_dict(raw)
    except ValueError as err:
        raise errors.BadRequest(f"the object provided is unrecognized: {err}") from err


def _event(change: Change, kind: Kind, namespace: str, chosen: Callable[[Any], bool]) -> Any:
    """The change as a watch with this selection sees it; None if it does not."""
    if change.kind.resource != kind.resource or (namespace and change.key[1] != namespace):
        return None
    was = change.old is not None and chosen(change.old)
    now = change.new is not None and chosen(change.new)
    event = apiserver_pb2.WatchEvent
    if now:
        return event(type=event.MODIFIED if was else event.ADDED, object=_envelope(change.last))
    return event(type=event.DELETED, object=_envelope(change.last)) if was else None


class _Errors(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Answers ApiErrors by the contract's table."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.response_streaming:
            behaviour = handler.unary_stream or handler.stream_stream

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                try:
                    async for response in behaviour(request, context):
                        yield response
                except errors.ApiError as err:
                    await grpc_errors.abort(context, err)

            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, handler.request_deserializer, handler.response_serializer)

        async def unary(request: Any, context: Any) -> Any:
            try:
                return await handler.unary_unary(request, context)
            except errors.ApiError as err:
                await grpc_errors.abort(context, err)

        return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)
