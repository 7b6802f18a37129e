"""The ApiServer contract over gRPC: messages to requests and back, nothing else. What a verb does is in the
handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import grpc.aio
import msgspec
import orjson

from machinery.api import errors
from machinery.component import grpc_errors, tls
from protos.cutaway.v1 import apiserver_pb2 as pb
from protos.cutaway.v1 import apiserver_pb2_grpc, object_pb2, stream_pb2
from services.apiserver.auth.authenticate import Authenticator
from services.apiserver.entries import Entry
from services.apiserver.handlers import Handlers
from services.apiserver.kubelet_proxy import KubeletProxy
from services.apiserver.large import aside
from services.apiserver.registry.resource import Resource
from services.apiserver.request import (
    DeleteOptions,
    Fence,
    ListOptions,
    Request,
    User,
    WatchOptions,
    WriteOptions,
)
from services.apiserver.rest import bodies
from services.apiserver.rpc_turns import Turn, Turns
from services.apiserver.selection import name_selected
from services.apiserver.watcher import WatchEvent
from storage.store import Event, EventType

BATCH_MAX = 1000
CHUNK_OBJECTS_MAX = 500
CHUNK_BYTES_MAX = 1024 * 1024
AUTHENTICATED = "system:authenticated"
KUBERNETES_VERSION = "v1.37.1"

_PATCH_TYPES = {
    pb.PatchRequest.JSON: "json",
    pb.PatchRequest.MERGE: "merge",
    pb.PatchRequest.STRATEGIC: "strategic",
    pb.PatchRequest.APPLY: "apply",
}
_EVENT_TYPES = {"ADDED": pb.WatchEvent.ADDED, "MODIFIED": pb.WatchEvent.MODIFIED, "DELETED": pb.WatchEvent.DELETED}


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""


class _Identity(msgspec.Struct):
    apiVersion: str = ""
    kind: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


HISTORY_DEFAULT, HISTORY_MAX = 100, 1000
"""Versions of an object that one question answers."""

_identity = msgspec.json.Decoder(_Identity)


def envelope(json: bytes, *, omit_json: bool = False) -> object_pb2.Object:
    """An object's bytes inside their envelope."""
    seen = _identity.decode(json)
    metadata = seen.metadata
    return object_pb2.Object(
        api_version=seen.apiVersion, kind=seen.kind, namespace=metadata.namespace, name=metadata.name, uid=metadata.uid,
        revision=int(metadata.resourceVersion or 0), json=b"" if omit_json else json,
    )  # fmt: skip


def _version(event: Event) -> pb.Version:
    if event.type is EventType.DELETE:
        kind = pb.Version.DELETED
    else:
        kind = pb.Version.CREATED if event.create_revision == event.revision else pb.Version.CHANGED
    return pb.Version(object=envelope(event.value), kind=kind, user=event.author, time=event.time)


class ApiServerService(apiserver_pb2_grpc.ApiServerServicer):
    """The servicer. `authenticator` judges bearer tokens; a client certificate speaks for itself. `turns` says when a
    call begins."""

    def __init__(self, handlers: Handlers, authenticator: Authenticator, kubelets: KubeletProxy, turns: Turns) -> None:
        self._turns = turns
        self._handlers = handlers
        self._authenticator = authenticator
        self._kubelets = kubelets

    # --- reads

    async def Get(self, request: pb.GetRequest, context: Any) -> object_pb2.Object:
        """One object."""
        req = await self._request(
            context, "get", request.resource, request.namespace, request.name, request.subresource
        )
        async with self._turns(req):
            return envelope(await self._handlers.get(req, at_revision=request.at_revision))

    async def History(self, request: pb.HistoryRequest, context: Any) -> pb.HistoryResponse:
        """The writes of one object, newest first."""
        if request.limit > HISTORY_MAX:
            raise errors.BadRequest(f"limit: at most {HISTORY_MAX} versions at once, not {request.limit}")
        req = await self._request(context, "get", request.resource, request.namespace, request.name)
        async with self._turns(req):
            events = await self._handlers.history(req, request.limit or HISTORY_DEFAULT, request.at_revision)
        answer, size = pb.HistoryResponse(), 0
        for event in events:
            size += len(event.value)
            if size > CHUNK_BYTES_MAX and answer.versions:
                break
            answer.versions.append(_version(event))
        return answer

    async def Follow(self, request: pb.FollowRequest, context: Any) -> AsyncIterator[pb.FollowBatch]:
        """Every write, as it is committed."""
        user = await self._user(context)
        async for revision, events in self._handlers.follow(user, request.after_revision):
            batch, size = pb.FollowBatch(), 0
            for event in events:
                if size > CHUNK_BYTES_MAX:
                    batch.revision = batch.writes[-1].version.object.revision
                    yield batch
                    batch, size = pb.FollowBatch(), 0
                group = event.key.resource.partition(".")
                ref = object_pb2.ResourceRef(group=group[2], resource=group[0])
                batch.writes.add(resource=ref, version=_version(event))
                size += len(event.value)
            batch.revision = revision
            yield batch

    async def Compact(self, request: pb.CompactRequest, context: Any) -> pb.CompactResponse:
        """Forget history."""
        begins, removed = await self._handlers.compact(await self._user(context), request.revision)
        return pb.CompactResponse(revision=begins, removed=removed)

    async def List(self, request: pb.ListRequest, context: Any) -> AsyncIterator[pb.ListChunk]:
        """Objects in chunks."""
        name = name_selected(request.field_selector)
        req = await self._request(context, "list", request.resource, request.namespace, name)
        exact = request.at_revision
        options = ListOptions(
            request.label_selector, request.field_selector,
            resource_version=str(exact) if exact else "", resource_version_match="Exact" if exact else "",
        )  # fmt: skip
        async with self._turns(req):
            result = await self._handlers.list(req, options)
            chunk, size = pb.ListChunk(revision=result.revision), 0
            sent = False
            for entry, json in zip(result.entries, result.items, strict=True):
                if len(chunk.items) >= CHUNK_OBJECTS_MAX or size > CHUNK_BYTES_MAX:
                    yield chunk
                    chunk, size, sent = pb.ListChunk(revision=result.revision), 0, True
                _fill(chunk.items.add(), req.resource, entry, json, entry.revision)
                size += len(json)
            if chunk.items or not sent:
                yield chunk

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchBatch]:
        """Changes in batches; without a revision the current state first."""
        name = name_selected(request.field_selector)
        req = await self._request(context, "watch", request.resource, request.namespace, name)
        begin = not request.HasField("after_revision")
        options = WatchOptions(
            request.label_selector, request.field_selector,
            resource_version="" if begin else str(request.after_revision),
            resource_version_match="NotOlderThan" if begin else "",
            send_initial_events=True if begin else None,
            allow_bookmarks=True,
        )  # fmt: skip
        async with self._turns(req):
            await self._handlers.be_fresh(options.resource_version)
        stream = self._handlers.watch(req, options)
        initial = begin
        try:
            async for events in stream:
                batch, size = pb.WatchBatch(), 0
                for event in events:
                    if event.entry is not None:
                        if size > CHUNK_BYTES_MAX:
                            batch.revision = 0 if initial else batch.events[-1].object.revision
                            yield batch
                            batch, size = pb.WatchBatch(), 0
                        _add(batch, req.resource, event)
                        size += len(event.json)
                    elif initial:
                        batch.initial_events_end, initial = True, False
                # While the state is not complete nothing may be concluded from its parts.
                batch.revision = 0 if initial else stream.revision
                yield batch
        finally:
            await stream.aclose()

    # --- writes

    async def Create(self, request: pb.CreateRequest, context: Any) -> object_pb2.Object:
        """Create."""
        user = await self._user(context)
        async with self._turn(user, "create", request):
            return await self._create(user, _agent(context), request)

    async def Update(self, request: pb.UpdateRequest, context: Any) -> object_pb2.Object:
        """Replace."""
        user = await self._user(context)
        async with self._turn(user, "update", request):
            return await self._update(user, _agent(context), request)

    async def Patch(self, request: pb.PatchRequest, context: Any) -> object_pb2.Object:
        """Change in part."""
        user = await self._user(context)
        async with self._turn(user, "patch", request):
            return await self._patch(user, _agent(context), request)

    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:
        """Delete, or begin to."""
        user = await self._user(context)
        async with self._turn(user, "delete", request):
            return await self._delete(user, _agent(context), request)

    async def DeleteCollection(self, request: pb.DeleteCollectionRequest, context: Any) -> pb.DeleteCollectionResponse:
        """Delete what the selectors choose."""
        req = await self._request(context, "deletecollection", request.resource, request.namespace)
        options = ListOptions(request.label_selector, request.field_selector)
        async with self._turns(req):
            results = await self._handlers.delete_collection(req, options, _delete_options(request.options))
        return pb.DeleteCollectionResponse(
            deleted=[pb.DeleteResponse(object=envelope(result.json), gone=result.gone) for result in results]
        )

    async def Batch(self, request: pb.BatchRequest, context: Any) -> pb.BatchResponse:
        """Many mutations, begun in order and committed together."""
        if len(request.mutations) > BATCH_MAX:
            raise errors.BadRequest(f"a batch holds at most {BATCH_MAX} mutations, not {len(request.mutations)}")
        user, agent = await self._user(context), _agent(context)
        async with self._batch_turn(user, request):
            return await self._batch(user, agent, request)

    def _batch_turn(self, user: User, request: pb.BatchRequest) -> AbstractAsyncContextManager[None]:
        for mutation in request.mutations:
            kind = mutation.WhichOneof("mutation")
            try:
                if kind is not None:
                    return self._turn(user, kind, getattr(mutation, kind), len(request.mutations))
            except errors.NotFound:
                # Each mutation has its own result; this one's is that its resource is not served.
                continue
        return nullcontext()

    def _turn(self, user: User, verb: str, m: Any, count: int = 1) -> Turn:
        subresource = "" if verb == "delete" else m.subresource
        return self._turns.of(user, verb, self._resolve(m.resource), subresource, m.namespace, count)

    async def _batch(self, user: User, agent: str, request: pb.BatchRequest) -> pb.BatchResponse:
        loop = asyncio.get_running_loop()
        # Tasks begin in the order in which they are made and run to their commit without a pause, so the store gets
        # them in order and groups them. Mutations of one object wait for each other: the second one sees what the first
        # did.
        last: dict[tuple[str, str, str, str], asyncio.Task[pb.MutationResult]] = {}
        tasks = []
        for mutation in request.mutations:
            key = _object_key(mutation)
            work = self._mutate(user, agent, mutation, request.omit_objects, last.get(key) if key else None)
            task = loop.create_task(work, name="batch mutation")
            tasks.append(task)
            if key:
                last[key] = task
        return pb.BatchResponse(results=await asyncio.gather(*tasks))

    async def _mutate(
        self, user: User, agent: str, mutation: pb.Mutation, omit: bool, after: asyncio.Task[pb.MutationResult] | None
    ) -> pb.MutationResult:
        if after is not None:
            await asyncio.wait((after,))
        kind = mutation.WhichOneof("mutation")
        try:
            if kind == "create":
                answer = await self._create(user, agent, mutation.create, omit)
            elif kind == "update":
                answer = await self._update(user, agent, mutation.update, omit)
            elif kind == "patch":
                answer = await self._patch(user, agent, mutation.patch, omit)
            elif kind == "delete":
                answer = (await self._delete(user, agent, mutation.delete, omit)).object
            else:
                raise errors.BadRequest("an empty mutation")
        except errors.ApiError as err:
            return pb.MutationResult(error=grpc_errors.status_message(err))
        return pb.MutationResult(object=answer)

    async def _create(self, user: User, agent: str, m: pb.CreateRequest, omit: bool = False) -> object_pb2.Object:
        resource = self._resolve(m.resource)
        _refuse_misplaced(resource, m.namespace)
        req = Request(user, "create", resource, m.subresource, m.namespace, m.name, agent)
        async with self._handlers.large.turn(req, len(m.json)):
            body = await aside(req, _body, m.json)
            result = await self._handlers.create(req, body, _write_options(m.options))
        return envelope(result.json, omit_json=omit)

    async def _update(self, user: User, agent: str, m: pb.UpdateRequest, omit: bool = False) -> object_pb2.Object:
        resource = self._resolve(m.resource)
        _refuse_misplaced(resource, m.namespace)
        req = Request(user, "update", resource, m.subresource, m.namespace, m.name, agent)
        async with self._handlers.large.turn(req, len(m.json)):
            body = await aside(req, _body, m.json)
            result = await self._handlers.update(req, body, _write_options(m.options))
        return envelope(result.json, omit_json=omit)

    async def _patch(self, user: User, agent: str, m: pb.PatchRequest, omit: bool = False) -> object_pb2.Object:
        resource = self._resolve(m.resource)
        _refuse_misplaced(resource, m.namespace)
        req = Request(user, "patch", resource, m.subresource, m.namespace, m.name, agent)
        kind = _PATCH_TYPES.get(m.type)
        if kind is None:
            raise errors.UnsupportedMediaType("the patch has no type")
        async with self._handlers.large.turn(req, len(m.patch)):
            patch = await aside(req, _apply_body if kind == "apply" else _json, m.patch)
            result = await self._handlers.patch(req, kind, patch, _write_options(m.options))  # type: ignore[arg-type]
        return envelope(result.json, omit_json=omit)

    async def _delete(self, user: User, agent: str, m: pb.DeleteRequest, omit: bool = False) -> pb.DeleteResponse:
        resource = self._resolve(m.resource)
        _refuse_misplaced(resource, m.namespace)
        req = Request(user, "delete", resource, "", m.namespace, m.name, agent)
        result = await self._handlers.delete(req, _delete_options(m.options))
        return pb.DeleteResponse(object=envelope(result.json, omit_json=omit), gone=result.gone)

    # --- the rest

    async def Discover(self, request: pb.DiscoverRequest, context: Any) -> pb.DiscoverResponse:
        """What is served."""
        await self._user(context)
        return pb.DiscoverResponse(version=KUBERNETES_VERSION, resources=map(_served, self._handlers.registry.all()))

    async def Logs(self, request: stream_pb2.LogsRequest, context: Any) -> AsyncIterator[stream_pb2.Chunk]:
        """A container's log."""
        await self._authorize_pod(context, "get", "log", request.namespace, request.pod)
        async for chunk in self._kubelets.logs(request):
            yield chunk

    async def Exec(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[stream_pb2.ExecOutput]:
        """Run a command in a container."""
        frames = await self._session(requests, context, "exec")
        async for output in self._kubelets.exec(frames):
            yield output

    async def Attach(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[stream_pb2.ExecOutput]:
        """Attach to a container's main process."""
        frames = await self._session(requests, context, "attach")
        async for output in self._kubelets.attach(frames):
            yield output

    async def PortForward(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[stream_pb2.PortForwardFrame]:
        """Forward connections into a pod."""
        frames = await self._session(requests, context, "portforward")
        async for frame in self._kubelets.port_forward(frames):
            yield frame

    async def _session(self, requests: AsyncIterator[Any], context: Any, subresource: str) -> AsyncIterator[Any]:
        """The caller's frames, once its first one has said which pod and the caller may."""
        frames = aiter(requests)
        first = await anext(frames, None)
        if first is None or first.WhichOneof("frame") != "start":
            raise errors.BadRequest("the first frame must be a start")
        start = first.start
        req = await self._authorize_pod(context, "create", subresource, start.namespace, start.pod)
        kind = req.resource.subresources[subresource].kind.kind
        await self._handlers.admit_connect(req, {"kind": kind, "apiVersion": "v1", **_connect_options(start)})
        return _rejoined(first, frames)

    async def _authorize_pod(self, context: Any, verb: str, subresource: str, namespace: str, name: str) -> Request:
        ref = object_pb2.ResourceRef(version="v1", resource="pods")
        req = await self._request(context, verb, ref, namespace, name, subresource)
        self._handlers.authorize(req)
        return req

    # --- who asks for what

    async def _request(
        self,
        context: Any,
        verb: str,
        ref: object_pb2.ResourceRef,
        namespace: str,
        name: str = "",
        subresource: str = "",
    ) -> Request:
        resource = self._resolve(ref)
        _refuse_misplaced(resource, namespace)
        return Request(await self._user(context), verb, resource, subresource, namespace, name, _agent(context))

    def _resolve(self, ref: object_pb2.ResourceRef) -> Resource:
        return self._handlers.registry.resolve(ref.group, ref.version, ref.resource)

    async def _user(self, context: grpc.aio.ServicerContext) -> User:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and value[:7].lower() == "bearer ":
                return await self._authenticator.from_token(value[7:])
        identity = tls.identity_of_call(context)
        if identity is None:
            raise errors.Unauthorized("Unauthorized")
        return User(identity.name, groups=(*identity.groups, AUTHENTICATED))


def _refuse_misplaced(resource: Resource, namespace: str) -> None:
    """A cluster-scoped object is not to be reached below a namespace: rights there must not count (CVE-2019-11247)."""
    if namespace and not resource.namespaced:
        raise errors.BadRequest(f"{resource.plural} are cluster-scoped: the request must name no namespace")


def _object_key(mutation: pb.Mutation) -> tuple[str, str, str, str] | None:
    """Which object a mutation is about; None if that is not known yet (a generated name, an unreadable body)."""
    kind = mutation.WhichOneof("mutation")
    if kind is None:
        return None
    about = getattr(mutation, kind)
    name = about.name
    if not name:
        try:
            name = _identity.decode(about.json).metadata.name
        except msgspec.DecodeError:
            return None
    return (about.resource.group, about.resource.resource, about.namespace, name) if name else None


def _connect_options(start: Any) -> dict[str, Any]:
    """A session's options as admission judges them: the fields of PodExecOptions, PodAttachOptions."""
    if not isinstance(start, stream_pb2.ExecStart):
        return {}
    options: dict[str, Any] = {name: True for name in ("stdin", "stdout", "stderr", "tty") if getattr(start, name)}
    if start.container:
        options["container"] = start.container
    if start.command:
        options["command"] = list(start.command)
    return options


async def _rejoined(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for frame in rest:
        yield frame


def _agent(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "user-agent":
            # gRPC puts its own name behind the caller's; field managers are called by the caller's alone.
            return str(value).partition(" grpc-")[0]
    return ""


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as err:
        raise errors.BadRequest(f"the body is not JSON: {err}") from err


def _body(raw: bytes) -> dict[str, Any]:
    body = _json(raw)
    if not isinstance(body, dict):
        raise errors.BadRequest("the body must be an object")
    return body


def _apply_body(raw: bytes) -> Any:
    if raw[:1] == b"{":
        return _body(raw)
    return bodies.decode_yaml(raw)


def _write_options(options: pb.WriteOptions) -> WriteOptions:
    return WriteOptions(
        options.dry_run, options.field_manager, options.field_validation, options.force,
        _fence(options.fence) if options.HasField("fence") else None,
    )  # fmt: skip


def _delete_options(options: pb.DeleteOptions) -> DeleteOptions:
    revision = options.preconditions.revision
    return DeleteOptions(
        options.grace_period_seconds if options.HasField("grace_period_seconds") else None,
        options.propagation_policy, options.preconditions.uid, str(revision) if revision else "", options.dry_run,
        _fence(options.fence) if options.HasField("fence") else None,
    )  # fmt: skip


def _fence(fence: object_pb2.Fence) -> Fence:
    return Fence(fence.lease_namespace, fence.lease_name, fence.epoch, fence.lease_uid)


def _fill(message: object_pb2.Object, resource: Resource, entry: Entry, json: bytes, revision: int) -> None:
    """Fill an envelope where it stands: to make it first and then add it would copy the object twice."""
    kind = resource.kind
    message.api_version, message.kind = kind.api_version, kind.kind
    message.namespace, message.name, message.uid = entry.namespace, entry.name, entry.uid
    message.revision, message.json = revision, json


def _add(batch: pb.WatchBatch, resource: Resource, event: WatchEvent) -> None:
    assert event.entry is not None
    message = batch.events.add(type=_EVENT_TYPES[event.type])
    _fill(message.object, resource, event.entry, event.json, event.revision)


def _served(resource: Resource) -> pb.ServedResource:
    kind = resource.kind
    return pb.ServedResource(
        resource=kind.ref, kind=kind.kind, namespaced=kind.namespaced, verbs=resource.verbs, singular=resource.singular,
        short_names=resource.short_names, categories=resource.categories, subresources=sorted(resource.subresources),
    )  # fmt: skip
