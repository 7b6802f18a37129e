"""An informer: a local, indexed copy of a kind's objects that follows the apiserver, and calls handlers on each change.

One Watch RPC does it all: the present state, a bookmark, then changes. When the stream breaks, the informer goes on
after the last revision it has seen; when that is Expired, it takes the whole state again and tells handlers the
difference (by uid and revision), so that they see every object's end, though perhaps not each of its states.

    (start) ── state, bookmark ──> synced ── change ──> synced
                   ^                  │ broken: again after `revision`, with back-off
                   └──── Expired ─────┘
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import operator
import random
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from machinery.api import objects
from machinery.api.errors import ApiError, Expired
from machinery.api.kinds import Kind
from machinery.api.selectors import LabelSelector
from machinery.client.api_client import ApiClient, Decode, decode_or_none
from machinery.component import logs, metrics
from protos.cutaway.v1 import apiserver_pb2

T = TypeVar("T")

Indexer = Callable[[T], Iterable[str]]
Handler = Callable[[T | None, T | None], None]

BACKOFF_SECONDS_FIRST = 0.05
BACKOFF_SECONDS_MAX = 1.0
"""Short, because a restarted apiserver should have its watchers back within a second; jitter spreads them."""

log = logs.get("informer")


class Packing(Generic[T]):
    """How a Lister keeps its objects: as they are."""

    def pack(self, obj: T) -> Any:
        """What is kept."""
        return obj

    def unpack(self, kept: Any) -> T:
        """What is handed out."""
        return kept  # type: ignore[no-any-return]


class Packed(Packing[T]):
    """As bytes, for many objects that are seldom read: a tenth of the memory, and some microseconds a read.

    `model` is a msgspec structure. Its values are kept by their places, without the names of the fields.
    """

    def __init__(self, model: type[T]) -> None:
        self._model = model
        self._positional = _positional(model, {})
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        # What `encode` returns is up to a third larger than it looks.
        self._buffer = bytearray()
        self._decode = msgspec.msgpack.Decoder(self._positional).decode

    def pack(self, obj: T) -> bytes:
        """See Packing."""
        self._encode_into(msgspec.convert(obj, self._positional, from_attributes=True), self._buffer)
        return bytes(self._buffer)

    def unpack(self, kept: bytes) -> T:
        """See Packing."""
        return msgspec.convert(self._decode(kept), self._model, from_attributes=True)


def _positional(kind: Any, made: dict[type, type]) -> Any:
    """A type with every structure in it replaced by one of the same fields that is written as an array."""
    arguments = typing.get_args(kind)
    if arguments:
        inner = tuple(_positional(argument, made) for argument in arguments)
        origin = typing.get_origin(kind)
        return functools.reduce(operator.or_, inner) if origin is types.UnionType else origin[inner]
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    if kind not in made:
        fields = [(field.name, _positional(field.type, made)) for field in msgspec.structs.fields(kind)]
        made[kind] = msgspec.defstruct(kind.__name__, fields, array_like=True, gc=False)
    return made[kind]


class Lister(Generic[T]):
    """The copy, for reading. What it hands out is shared: never change it in place."""

    def __init__(
        self, indexers: Mapping[str, Indexer[T]] | None = None, packing: Packing[T] | None = None
    ) -> None:  # fmt: skip
        # Each object as the packing keeps it.
        self._objects: dict[str, Any] = {}
        self._namespaces: dict[str, dict[str, Any]] = {}
        self._indexers = dict(indexers or {})
        # Value -> the keys that have it; one alone, as in most indices of many objects, is not put into a dict.
        self._indices: dict[str, dict[str, str | dict[str, None]]] = {name: {} for name in self._indexers}
        self._packing = packing or Packing()

    def get(self, namespace: str, name: str) -> T | None:
        """One object, or None."""
        return self.by_key(f"{namespace}/{name}" if namespace else name)

    def by_key(self, key: str) -> T | None:
        """One object by "namespace/name" (or "name"), or None."""
        kept = self._objects.get(key)
        return None if kept is None else self._packing.unpack(kept)

    def list(self, namespace: str = "", selector: LabelSelector | None = None) -> builtins.list[T]:
        """Objects of a namespace (all if empty) that the selector (all if None) chooses, in no particular order."""
        kept = self._namespaces.get(namespace, {}) if namespace else self._objects
        found = [*map(self._packing.unpack, kept.values())]
        if selector is None or selector.empty:
            return found
        return [obj for obj in found if selector.matches(objects.labels_of(obj))]

    def by_index(self, name: str, value: str) -> Sequence[T]:
        """Objects for which the indexer `name` gave `value`."""
        members = self._indices[name].get(value, ())
        keys = (members,) if isinstance(members, str) else members
        return [self._packing.unpack(self._objects[key]) for key in keys]

    def keys(self) -> builtins.list[str]:
        """Every key."""
        return [*self._objects]

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(self.list())

    def __contains__(self, key: str) -> bool:
        return key in self._objects

    # Only the informer writes.

    def _put(self, key: str, obj: T, kept: Any = None) -> T | None:
        old = self.by_key(key)
        if old is not None:
            self._unindex(key, old)
        kept = kept if kept is not None else self._packing.pack(obj)
        self._objects[key] = kept
        self._namespaces.setdefault(key.rpartition("/")[0], {})[key] = kept
        for name, indexer in self._indexers.items():
            index = self._indices[name]
            for value in indexer(obj):
                members = index.setdefault(value, key)
                if isinstance(members, dict):
                    members[key] = None
                elif members != key:
                    index[value] = {members: None, key: None}
        return old

    def _remove(self, key: str) -> T | None:
        old = self.by_key(key)
        if old is not None:
            del self._objects[key]
            namespace = key.rpartition("/")[0]
            members = self._namespaces[namespace]
            del members[key]
            if not members:
                del self._namespaces[namespace]
            self._unindex(key, old)
        return old

    def _unindex(self, key: str, old: T) -> None:
        for name, indexer in self._indexers.items():
            index = self._indices[name]
            for value in indexer(old):
                members = index.get(value)
                if isinstance(members, dict):
                    members.pop(key, None)
                if members in (key, {}):
                    del index[value]


class Informer(Generic[T]):
    """Follows one kind. `run` it in a TaskGroup; wait for `synced` before trusting what is absent.

    Handlers are called in the order of changes, synchronously; they should only queue a key. `on_event(None, new)` is
    an addition, `(old, new)` an update, `(old, None)` a removal. A handler added late is first told of what is there.
    """

    def __init__(
        self,
        client: ApiClient,
        kind: Kind,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        decode: Decode | None = None,
        indexers: Mapping[str, Indexer[T]] | None = None,
        packing: Packing[T] | None = None,
    ) -> None:
        self.kind = kind
        self._packing: Packing[T] = packing or Packing()
        self.lister: Lister[T] = Lister(indexers, self._packing)
        self.synced = asyncio.Event()
        self.revision = 0
        self.last_error = ""
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._decode = decode or objects.decoder_for(kind)
        self._handlers: list[Handler[T]] = []
        # "uid/revision" of each object, from the envelope: what tells a change from a repetition when the state is
        # taken again.
        self._versions: dict[str, str] = {}
        # The state that is being received, each object as the packing keeps it, until its bookmark; None while
        # following changes.
        self._fresh: dict[str, tuple[Any, str]] | None = {}
        self._events = metrics.counter("informer_events_total", "Changes that an informer received.", ("kind",)).labels(
            kind.kind
        )

    def add_handler(self, on_event: Handler[T]) -> None:
        """Call `on_event(old, new)` on every change from now on, and now for each object that is there."""
        self._handlers.append(on_event)
        for obj in self.lister:
            self._call(on_event, None, obj)

    @property
    def has_synced(self) -> bool:
        """Whether the whole state was received once."""
        return self.synced.is_set()

    async def run(self) -> None:
        """Follow for ever.

        Errors of the apiserver are logged once and tried again; nothing but cancellation ends it.
        """
        pause = BACKOFF_SECONDS_FIRST
        while True:
            try:
                async for batch in self._watch():
                    self._apply(batch)
                    pause = BACKOFF_SECONDS_FIRST
                    if self.last_error:
                        log.info("watch resumed", kind=self.kind.kind, revision=self.revision)
                        self.last_error = ""
                # The server ended the stream in good order (it is stopping, or rotates watches): go on at once,
                # elsewhere.
            except Expired:
                log.info("watch expired, taking the whole state", kind=self.kind.kind, revision=self.revision)
                self.revision = 0
            except ApiError as err:
                if not self.last_error:
                    log.warning("watch failed, trying again", kind=self.kind.kind, error=err.message)
                self.last_error = err.message
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, BACKOFF_SECONDS_MAX)

    def _watch(self) -> Any:
        # A state that was cut off in the middle is worth nothing: it has no single revision to go on from.
        self._fresh = None if self.revision else {}
        return self._client.watch_raw(
            self.kind,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            after_revision=self.revision or None,
        )

    def _apply(self, batch: apiserver_pb2.WatchBatch) -> None:
        for event in batch.events:
            self._apply_event(event)
        if batch.events:
            self._events.inc(len(batch.events))
        if self._fresh is None:
            self.revision = batch.revision or self.revision
        elif batch.initial_events_end:
            fresh, self._fresh = self._fresh, None
            self.revision = batch.revision
            self._replace(fresh)
            self.synced.set()

    def _apply_event(self, event: apiserver_pb2.WatchEvent) -> None:
        envelope = event.object
        # Interned, as several kinds and indices have the same keys.
        key = sys.intern(f"{envelope.namespace}/{envelope.name}" if envelope.namespace else envelope.name)
        if event.type == apiserver_pb2.WatchEvent.DELETED:
            if self._fresh is not None:
                self._fresh.pop(key, None)
            else:
                self._drop(key, decode_or_none(self.kind, envelope, self._decode))
            return
        obj = decode_or_none(self.kind, envelope, self._decode)
        if obj is None:
            return
        _drop_managed_fields(obj)
        version = f"{envelope.uid}/{envelope.revision}"
        if self._fresh is not None:
            self._fresh[key] = (self._packing.pack(obj), version)
        else:
            self._take(key, obj, version)

    def _replace(self, fresh: dict[str, tuple[Any, str]]) -> None:
        for key in [key for key in self._versions if key not in fresh]:
            self._drop(key, None)
        for key, (kept, version) in fresh.items():
            if self._versions.get(key) != version:
                self._take(key, self._packing.unpack(kept), version, kept)

    def _take(self, key: str, obj: T, version: str, kept: Any = None) -> None:
        before = self._versions.get(key)
        if before is not None and before.partition("/")[0] != version.partition("/")[0]:
            self._drop(key, None)  # Its namesake's end was missed: two objects never look like one that changed.
        self._versions[key] = version
        old = self.lister._put(key, obj, kept)
        for handler in self._handlers:
            self._call(handler, old, obj)

    def _drop(self, key: str, last: T | None) -> None:
        self._versions.pop(key, None)
        old = self.lister._remove(key)
        if old is None:
            return
        for handler in self._handlers:
            self._call(handler, last if last is not None else old, None)

    def _call(self, handler: Handler[T], old: T | None, new: T | None) -> None:
        try:
            handler(old, new)
        except Exception as err:  # A defect in one handler must not keep the others, or the copy, from going on.
            log.error("informer handler failed", kind=self.kind.kind, exc_info=err)


def _drop_managed_fields(obj: Any) -> None:
    """Nothing decides by them, and they would be most of what an object takes in memory."""
    if isinstance(obj, dict):
        obj.get("metadata", {}).pop("managedFields", None)
        return
    metadata = getattr(obj, "metadata", None)
    if getattr(metadata, "managedFields", None) is not None:
        metadata.managedFields = None  # type: ignore[union-attr]


async def wait_synced(*informers: Informer[Any], timeout: float | None = None) -> None:
    """Wait until all have received their state. Raises TimeoutError that names those that have not."""
    try:
        async with asyncio.timeout(timeout):
            for informer in informers:
                await informer.synced.wait()
    except TimeoutError:
        waiting = [f"{i.kind.resource} ({i.last_error or 'no answer'})" for i in informers if not i.has_synced]
        raise TimeoutError(f"not synced after {timeout} s: {', '.join(waiting)}") from None
