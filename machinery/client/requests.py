"""What callers say to the client (options, patch types, mutations) and what they get back, and how these become
messages.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

from machinery.api import objects
from machinery.api.errors import ApiError
from machinery.api.kinds import Kind
from protos.cutaway.v1 import apiserver_pb2, object_pb2

T = TypeVar("T")


class PatchType(enum.IntEnum):
    """How a patch is to be read."""

    JSON = apiserver_pb2.PatchRequest.JSON
    MERGE = apiserver_pb2.PatchRequest.MERGE
    STRATEGIC = apiserver_pb2.PatchRequest.STRATEGIC
    APPLY = apiserver_pb2.PatchRequest.APPLY


class Fence(msgspec.Struct, frozen=True):
    """A leadership that writes are tied to: the Lease, its `spec.leaseTransitions` when it was won, and its uid (empty:
    whichever Lease has the name)."""

    lease_namespace: str
    lease_name: str
    epoch: int
    lease_uid: str = ""


class WriteOptions(msgspec.Struct, kw_only=True):
    """How a write is to be judged. See WriteOptions in apiserver.proto."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = ""
    force: bool = False
    fence: Fence | None = None


class Listing(msgspec.Struct, Generic[T]):
    """A list as of one revision: begin a watch after it."""

    items: list[T]
    revision: int

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class WatchBatch(msgspec.Struct, Generic[T]):
    """Events in order, as (type, object) with type ADDED, MODIFIED or DELETED; without events it is a bookmark."""

    events: list[tuple[str, T]]
    revision: int
    initial_events_end: bool = False


class BatchResult(msgspec.Struct):
    """One mutation's outcome: `error` is None if it worked; `object` is None unless it was asked for.

    `name` and `revision` are those of the object as written (of its deletion), also where its JSON was left out.
    """

    error: ApiError | None = None
    object: Any = None
    name: str = ""
    revision: int = 0


def fence_message(fence: Fence | None) -> object_pb2.Fence | None:
    """The fence as a message."""
    if fence is None:
        return None
    return object_pb2.Fence(
        lease_namespace=fence.lease_namespace, lease_name=fence.lease_name, epoch=fence.epoch, lease_uid=fence.lease_uid
    )


def write_options(options: WriteOptions | None, fence: Fence | None) -> apiserver_pb2.WriteOptions | None:
    """The options as a message; `fence` holds where they have none of their own."""
    if options is None:
        return None if fence is None else apiserver_pb2.WriteOptions(fence=fence_message(fence))
    return apiserver_pb2.WriteOptions(
        dry_run=options.dry_run,
        field_manager=options.field_manager,
        field_validation=options.field_validation,
        force=options.force,
        fence=fence_message(options.fence or fence),
    )


def _identity(obj: Any, namespace: str, name: str) -> tuple[str, str]:
    """(namespace, name) of a write: what the caller said, else what the object says."""
    if isinstance(obj, (bytes, bytearray)):
        metadata: Any = objects.decode_partial(bytes(obj)).metadata
    elif isinstance(obj, Mapping):
        metadata = obj.get("metadata") or {}
        return namespace or metadata.get("namespace") or "", name or metadata.get("name") or ""
    else:
        metadata = getattr(obj, "metadata", None)
    return namespace or getattr(metadata, "namespace", None) or "", name or getattr(metadata, "name", None) or ""


def create_request(
    kind: Kind, obj: Any, namespace: str = "", *, name: str = "", subresource: str = "",
    options: WriteOptions | None = None, fence: Fence | None = None,
) -> apiserver_pb2.CreateRequest:  # fmt: skip
    """A CreateRequest. The name is sent only with a subresource, whose parent it names."""
    namespace, _ = _identity(obj, namespace, name)
    return apiserver_pb2.CreateRequest(
        resource=kind.ref, namespace=namespace, name=name, subresource=subresource, json=objects.encode(obj),
        options=write_options(options, fence),
    )  # fmt: skip


def update_request(
    kind: Kind, obj: Any, namespace: str = "", *, name: str = "", subresource: str = "",
    options: WriteOptions | None = None, fence: Fence | None = None,
) -> apiserver_pb2.UpdateRequest:  # fmt: skip
    """An UpdateRequest for the object's own name."""
    namespace, name = _identity(obj, namespace, name)
    return apiserver_pb2.UpdateRequest(
        resource=kind.ref, namespace=namespace, name=name, subresource=subresource, json=objects.encode(obj),
        options=write_options(options, fence),
    )  # fmt: skip


def patch_request(
    kind: Kind, name: str, namespace: str, patch: Any, *, type: PatchType = PatchType.MERGE, subresource: str = "",
    options: WriteOptions | None = None, fence: Fence | None = None,
) -> apiserver_pb2.PatchRequest:  # fmt: skip
    """A PatchRequest."""
    return apiserver_pb2.PatchRequest(
        resource=kind.ref, namespace=namespace, name=name, subresource=subresource, type=cast(Any, int(type)),
        patch=objects.encode(patch), options=write_options(options, fence),
    )  # fmt: skip


def delete_options(
    *, grace_period_seconds: int | None = None, propagation_policy: str = "", uid: str = "", revision: int = 0,
    options: WriteOptions | None = None, fence: Fence | None = None,
) -> apiserver_pb2.DeleteOptions:  # fmt: skip
    """DeleteOptions."""
    out = apiserver_pb2.DeleteOptions(
        propagation_policy=propagation_policy,
        dry_run=bool(options and options.dry_run),
        fence=fence_message((options and options.fence) or fence),
    )
    if grace_period_seconds is not None:
        out.grace_period_seconds = grace_period_seconds
    if uid or revision:
        out.preconditions.uid = uid
        out.preconditions.revision = revision
    return out


class Mutation(msgspec.Struct):
    """One write of a batch.

    Build it with `Mutation.create`, `update`, `patch` or `delete`; they take what the client's methods take.
    """

    kind: Kind
    message: apiserver_pb2.Mutation

    @classmethod
    def create(cls, kind: Kind, obj: Any, namespace: str = "", **rest: Any) -> Mutation:
        """Create `obj`, or a subresource of the object called `name` (`name="web", subresource="binding"`)."""
        return cls(kind, apiserver_pb2.Mutation(create=create_request(kind, obj, namespace, **rest)))

    @classmethod
    def update(cls, kind: Kind, obj: Any, namespace: str = "", **rest: Any) -> Mutation:
        """Replace an object or its subresource."""
        return cls(kind, apiserver_pb2.Mutation(update=update_request(kind, obj, namespace, **rest)))

    @classmethod
    def patch(cls, kind: Kind, name: str, namespace: str, patch: Any, **rest: Any) -> Mutation:
        """Change part of an object."""
        return cls(kind, apiserver_pb2.Mutation(patch=patch_request(kind, name, namespace, patch, **rest)))

    @classmethod
    def delete(cls, kind: Kind, name: str, namespace: str = "", **rest: Any) -> Mutation:
        """Delete an object."""
        request = apiserver_pb2.DeleteRequest(
            resource=kind.ref, namespace=namespace, name=name, options=delete_options(**rest)
        )
        return cls(kind, apiserver_pb2.Mutation(delete=request))

    def fenced(self, fence: Fence | None) -> apiserver_pb2.Mutation:
        """The message, with `fence` where it has none of its own."""
        if fence is None:
            return self.message
        options = getattr(self.message, self.message.WhichOneof("mutation") or "create").options
        if not options.HasField("fence"):
            options.fence.CopyFrom(fence_message(fence))
        return self.message
