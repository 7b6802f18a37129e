"""The typed client of the apiserver's gRPC contract.

    client = await ApiClient.connect(["127.0.0.1:6444"], config.tls, user_agent="scheduler")
    pod = await client.get(kinds.POD, "web-1", "default")           # a lightkube.models.core_v1.Pod
    await client.patch(kinds.POD, "web-1", "default", {"metadata": {"labels": {"seen": "yes"}}})

Objects come back as the kind's model (a dict for a custom kind) and go in as model, dict or JSON bytes. Every unary
call has a deadline (`timeout`, seconds). What fails is an ApiError of `machinery.api.errors`; ServiceUnavailable and
Timeout on a write mean that it may or may not have happened. Objects that the client hands out may be shared
(informers): do not change them in place.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import msgspec

from machinery.api import kinds, objects
from machinery.api.errors import ServiceUnavailable
from machinery.api.kinds import Kind
from machinery.client import requests
from machinery.client.channels import Channels, Retries
from machinery.client.requests import (
    BatchResult,
    Fence,
    Listing,
    Mutation,
    PatchType,
    WatchBatch,
    WriteOptions,
)
from machinery.component import grpc_errors, logs, tls, tracing
from protos.cutaway.v1 import apiserver_pb2, apiserver_pb2_grpc, object_pb2, stream_pb2

__all__ = [
    "ApiClient", "BatchResult", "Fence", "Listing", "Mutation", "PatchType", "WatchBatch", "WriteOptions",
]  # fmt: skip

TIMEOUT_SECONDS = 10.0
LIST_TIMEOUT_SECONDS = 60.0
BATCH_MUTATIONS_MAX = 1000

Decode = Callable[[bytes], Any]

EVENT_TYPES = {
    apiserver_pb2.WatchEvent.ADDED: "ADDED",
    apiserver_pb2.WatchEvent.MODIFIED: "MODIFIED",
    apiserver_pb2.WatchEvent.DELETED: "DELETED",
}

log = logs.get("api_client")


class ApiClient:
    """A client of one or several apiservers on the same store; safe to share among tasks of one event loop."""

    def __init__(self, channels: Channels, fence: Fence | None = None) -> None:
        self._channels = channels
        self.fence = fence

    @classmethod
    async def connect(cls, addresses: Sequence[str] | str, tls: tls.TlsFiles | None, *, user_agent: str) -> ApiClient:
        """A client; it does not wait for the server.

        `tls` None: without TLS, for tests. Raises TlsError, ValueError.
        """
        listed = [addresses] if isinstance(addresses, str) else list(addresses)
        return cls(Channels(listed, tls, user_agent, apiserver_pb2_grpc.ApiServerStub))

    async def close(self) -> None:
        """Close the connections; also those of fenced views."""
        await self._channels.close()

    def fenced(self, fence: Fence | None) -> ApiClient:
        """A view of this client whose writes are all refused once `fence`'s leadership is over."""
        return ApiClient(self._channels, fence)

    # --- reads --------------------------------------------------------------------------------------------------------

    async def get(
        self, kind: Kind, name: str, namespace: str = "", *, subresource: str = "", at_revision: int = 0,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:  # fmt: skip
        """One object. Raises NotFound."""
        request = apiserver_pb2.GetRequest(
            resource=kind.ref, namespace=namespace, name=name, subresource=subresource, at_revision=at_revision
        )
        return _decoded(kind, await self._channels.call("Get", request, timeout, safe=True))

    async def list(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = "",
        at_revision: int = 0, decode: Decode | None = None, timeout: float = LIST_TIMEOUT_SECONDS,
    ) -> Listing[Any]:  # fmt: skip
        """Every object that the selectors choose, as of one revision.

        One that does not fit its model is left out and logged.
        """
        request = apiserver_pb2.ListRequest(
            resource=kind.ref, namespace=namespace, label_selector=str(label_selector),
            field_selector=str(field_selector), at_revision=at_revision,
        )  # fmt: skip
        decode = decode or objects.decoder_for(kind)
        retries = Retries(timeout)
        while True:
            items: builtins.list[Any] = []
            revision = 0
            stub = self._channels.stub
            try:
                async for chunk in stub.List(request, timeout=retries.remaining(), metadata=tracing.outgoing()):
                    revision = revision or chunk.revision
                    items += _decoded_all(kind, chunk.items, decode)
                return Listing(items, revision)
            except grpc.RpcError as err:
                error = self._stream_error(stub, err)
            # A list that broke off is begun anew: its chunks are of one revision.
            if not isinstance(error, ServiceUnavailable) or not await retries.pause():
                raise error

    async def watch(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = "",
        after_revision: int | None = None, decode: Decode | None = None,
    ) -> AsyncIterator[WatchBatch[Any]]:  # fmt: skip
        """Changes in batches; without `after_revision` first the present state. Raises Expired, ServiceUnavailable."""
        decode = decode or objects.decoder_for(kind)
        async for batch in self.watch_raw(
            kind, namespace, label_selector=label_selector, field_selector=field_selector, after_revision=after_revision
        ):
            events = []
            for event in batch.events:
                obj = decode_or_none(kind, event.object, decode)
                if obj is not None:
                    events.append((EVENT_TYPES[event.type], obj))
            yield WatchBatch(events, batch.revision, batch.initial_events_end)

    def watch_raw(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = "",
        after_revision: int | None = None,
    ) -> AsyncIterator[apiserver_pb2.WatchBatch]:  # fmt: skip
        """The same as messages, undecoded."""
        request = apiserver_pb2.WatchRequest(
            resource=kind.ref, namespace=namespace, label_selector=str(label_selector),
            field_selector=str(field_selector), after_revision=after_revision,
        )  # fmt: skip
        return self._streamed("Watch", request)

    def follow(self, after_revision: int = 0) -> AsyncGenerator[apiserver_pb2.FollowBatch, None]:
        """Every write of the whole cluster after a revision (0: from now on), with who asked for it.

        The first batch may be empty, and tells where the stream begins. Raises Forbidden, Expired, ServiceUnavailable.
        """
        return self._streamed("Follow", apiserver_pb2.FollowRequest(after_revision=after_revision))

    async def _streamed(
        self, method: str, request: apiserver_pb2.WatchRequest | apiserver_pb2.FollowRequest
    ) -> AsyncGenerator[Any, None]:
        """The messages of one server stream, which is cancelled when nobody wants more."""
        stub = self._channels.stub
        call = getattr(stub, method)(request)
        try:
            async for batch in call:
                yield batch
        except grpc.RpcError as err:
            raise self._stream_error(stub, err) from None
        finally:
            call.cancel()

    def _stream_error(self, stub: Any, err: grpc.RpcError) -> Exception:
        if err.code() is grpc.StatusCode.UNAVAILABLE:
            self._channels.fail_over(stub)
        return grpc_errors.from_rpc_error(err)

    async def discover(self, *, timeout: float = TIMEOUT_SECONDS) -> apiserver_pb2.DiscoverResponse:
        """What is served."""
        request = apiserver_pb2.DiscoverRequest()
        response: apiserver_pb2.DiscoverResponse = await self._channels.call("Discover", request, timeout, safe=True)
        return response

    # --- writes -------------------------------------------------------------------------------------------------------

    async def create(
        self, kind: Kind, obj: Any, namespace: str = "", *, name: str = "", subresource: str = "",
        options: WriteOptions | None = None, timeout: float = TIMEOUT_SECONDS,
    ) -> Any:  # fmt: skip
        """Create an object, or with `name` and `subresource` a subresource of it.

        Raises AlreadyExists, Invalid, Forbidden.
        """
        request = requests.create_request(
            kind, obj, namespace, name=name, subresource=subresource, options=options, fence=self.fence
        )
        return _decoded(kind, await self._channels.call("Create", request, timeout, safe=False))

    async def update(
        self, kind: Kind, obj: Any, namespace: str = "", *, name: str = "", subresource: str = "",
        options: WriteOptions | None = None, timeout: float = TIMEOUT_SECONDS,
    ) -> Any:  # fmt: skip
        """Replace an object. Raises Conflict if it changed since its metadata.resourceVersion; NotFound, Invalid."""
        request = requests.update_request(
            kind, obj, namespace, name=name, subresource=subresource, options=options, fence=self.fence
        )
        return _decoded(kind, await self._channels.call("Update", request, timeout, safe=False))

    async def patch(
        self, kind: Kind, name: str, namespace: str, patch: Any, *, type: PatchType = PatchType.MERGE,
        subresource: str = "", options: WriteOptions | None = None, timeout: float = TIMEOUT_SECONDS,
    ) -> Any:  # fmt: skip
        """Change part of an object. Raises NotFound, Invalid, Conflict."""
        request = requests.patch_request(
            kind, name, namespace, patch, type=type, subresource=subresource, options=options, fence=self.fence
        )
        return _decoded(kind, await self._channels.call("Patch", request, timeout, safe=False))

    async def apply(
        self, kind: Kind, obj: Any, *, field_manager: str, force: bool = False, subresource: str = "",
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:  # fmt: skip
        """Server-side apply. Raises Conflict naming the fields that others own."""
        raw = objects.encode(obj)
        metadata = objects.decode_partial(raw).metadata
        options = WriteOptions(field_manager=field_manager, force=force)
        return await self.patch(
            kind, metadata.name, metadata.namespace, raw, type=PatchType.APPLY, subresource=subresource,
            options=options, timeout=timeout,
        )  # fmt: skip

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, grace_period_seconds: int | None = None,
        propagation_policy: str = "", uid: str = "", revision: int = 0, options: WriteOptions | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:  # fmt: skip
        """Delete an object: None if it is gone, else its state while deletion goes on. Raises NotFound, Conflict."""
        request = apiserver_pb2.DeleteRequest(
            resource=kind.ref, namespace=namespace, name=name,
            options=requests.delete_options(
                grace_period_seconds=grace_period_seconds, propagation_policy=propagation_policy, uid=uid,
                revision=revision, options=options, fence=self.fence,
            ),
        )  # fmt: skip
        response = await self._channels.call("Delete", request, timeout, safe=False)
        return None if response.gone else _decoded(kind, response.object)

    async def delete_collection(
        self, kind: Kind, namespace: str = "", *, label_selector: str = "", field_selector: str = "",
        grace_period_seconds: int | None = None, propagation_policy: str = "", timeout: float = LIST_TIMEOUT_SECONDS,
    ) -> int:  # fmt: skip
        """Delete what the selectors choose; how many deletions began."""
        request = apiserver_pb2.DeleteCollectionRequest(
            resource=kind.ref, namespace=namespace, label_selector=str(label_selector),
            field_selector=str(field_selector),
            options=requests.delete_options(
                grace_period_seconds=grace_period_seconds, propagation_policy=propagation_policy, fence=self.fence
            ),
        )  # fmt: skip
        response = await self._channels.call("DeleteCollection", request, timeout, safe=False)
        return len(response.deleted)

    async def batch(
        self, mutations: Sequence[Mutation], *, omit_objects: bool = True, timeout: float = TIMEOUT_SECONDS
    ) -> builtins.list[BatchResult]:
        """Many independent writes, each with its own outcome, in order.

        More than 1,000 go in several calls, in order.
        """
        out: builtins.list[BatchResult] = []
        for start in range(0, len(mutations), BATCH_MUTATIONS_MAX):
            part = mutations[start : start + BATCH_MUTATIONS_MAX]
            request = apiserver_pb2.BatchRequest(
                mutations=[mutation.fenced(self.fence) for mutation in part], omit_objects=omit_objects
            )
            response = await self._channels.call("Batch", request, timeout, safe=False)
            for mutation, result in zip(part, response.results, strict=True):
                if result.HasField("error"):
                    out.append(BatchResult(error=grpc_errors.error_of(result.error)))
                else:
                    obj = None if omit_objects else _decoded(mutation.kind, result.object)
                    out.append(BatchResult(object=obj, name=result.object.name, revision=result.object.revision))
        return out

    # --- streams into containers --------------------------------------------------------------------------------------

    async def logs(self, request: stream_pb2.LogsRequest) -> AsyncIterator[bytes]:
        """A container's log, in pieces that are cut anywhere."""
        stub = self._channels.stub
        call = stub.Logs(request, metadata=tracing.outgoing())
        try:
            async for chunk in call:
                yield chunk.data
        except grpc.RpcError as err:
            raise self._stream_error(stub, err) from None
        finally:
            call.cancel()

    def exec(self) -> Any:
        """The bidirectional Exec stream of frames: `await stream.write(ExecInput(...))`, `await stream.read()`."""
        return self._channels.stub.Exec()

    def attach(self) -> Any:
        """The bidirectional Attach stream of frames."""
        return self._channels.stub.Attach()

    def port_forward(self) -> Any:
        """The bidirectional PortForward stream of frames."""
        return self._channels.stub.PortForward()


def _decoded(kind: Kind, obj: object_pb2.Object) -> Any:
    if not obj.json:
        return None
    if obj.kind and obj.kind != kind.kind:  # A subresource answered its own kind: a Scale, a TokenRequest, a Status.
        found = kinds.find(obj.api_version, obj.kind)
        return objects.decode(found, obj.json) if found else objects.decode_dict(obj.json)
    return objects.decode(kind, obj.json)


def decode_or_none(kind: Kind, obj: object_pb2.Object, decode: Decode) -> Any:
    """The object, or None if it does not fit its model.

    One bad object must not stop a component from seeing the others.
    """
    try:
        return decode(obj.json)
    except msgspec.DecodeError as err:
        log.warning("object left out", kind=kind.kind, namespace=obj.namespace, name=obj.name, error=str(err))
        return None


def _decoded_all(kind: Kind, items: Any, decode: Decode) -> list[Any]:
    decoded = (decode_or_none(kind, item, decode) for item in items)
    return [item for item in decoded if item is not None]
