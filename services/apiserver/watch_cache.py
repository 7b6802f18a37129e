"""The current state of everything, in memory: what GET, LIST and WATCH are answered from, without SQL and without
decoding.

    store.commit ──> WatchCache.apply ──> ResourceCache.apply ──> entries and indices
    store.follow ──>   (revision order)                       └─> recent changes, watchers, listeners

Invariants:
- Changes are applied in revision order without holes, so the cache is always exactly the store's state at
  `WatchCache.revision`, over all
  resources. A writer hands its own commit over at once (`commit`); what other writers of the same database commit
  arrives by
  `follow`, which also repeats our own commits: those are skipped. A commit that comes before its predecessor waits for
  it.
- An `Entry` never changes; a change replaces it. So a list of entries is a snapshot.
- What selectors look at (labels, field values) is taken from the object once, when it is written, and kept beside the
  bytes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.entries import Entry, Listener
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.selection import Selection, extractor
from services.apiserver.watcher import RECENT_CHANGES, Change, Watcher, WatchGroup, batches, pause
from storage.store import Event, EventType, Key, Mutation, Store

INDEXED_FIELDS = {"pods": "spec.nodeName"}
"""The field by which a resource is indexed: every kubelet lists and watches the pods of its node."""

SHARED_LABELS_MAX = 1024
"""Of how many different sets of labels a resource's equal ones are found. Then it begins anew: objects that each have
labels of their own share nothing anyway."""

FRESH_SECONDS_MAX = 3.0
"""How long a read waits for a revision that this apiserver has not seen yet; upstream's limit as well."""


_NO_HINT: tuple[bytes, dict[str, Any] | None] = (b"", None)


class _Shelf:
    """The entries of one namespace, by name, with a sorted list that is made when it is first asked for after a
    change."""

    __slots__ = ("_listed", "_names", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._names: list[str] | None = []
        self._listed: list[Entry] | None = []

    def put(self, entry: Entry) -> None:
        if entry.name not in self.entries:
            self._names = None
        self.entries[entry.name] = entry
        self._listed = None

    def remove(self, name: str) -> None:
        del self.entries[name]
        self._names = self._listed = None

    def listed(self) -> list[Entry]:
        if self._listed is None:
            if self._names is None:
                self._names = sorted(self.entries)
            entries = self.entries
            self._listed = [entries[name] for name in self._names]
        return self._listed


class _SharedLabels:
    """One dict for all objects with the same labels: replicas, and the states of one object."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def shared(self, labels: dict[str, str] | None) -> dict[str, str] | None:
        """Equal labels, or None for none."""
        if not labels:
            return None
        key = tuple(labels.items())
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= SHARED_LABELS_MAX:
                self._known.clear()
            known = self._known[key] = labels
        return known


class ResourceCache:
    """Everything of one storage: entries, indices, recent changes, watchers."""

    def __init__(self, storage: str, registry: Registry, floor: int) -> None:
        self.storage = storage
        self._shelves: dict[str, _Shelf] = {}
        row = registry.by_storage(storage)
        self._extracted = extracted = (row.extracted or ()) if row is not None else ()
        self._extract = extractor(extracted)
        indexed = INDEXED_FIELDS.get(storage)
        self._indexed = extracted.index(indexed) if indexed else -1
        self._labels = _SharedLabels()
        self._by_field: dict[str, dict[tuple[str, str], Entry]] = {}
        self.listeners: list[Listener] = []
        self.count = 0
        # Every change after `floor` is in `_recent`.
        self.floor = floor
        self._recent: list[Change] = []
        self.watchers = 0
        self._groups: dict[Selection, WatchGroup] = {}
        self._groups_by_field: dict[str, dict[Selection, WatchGroup]] = {}
        self._groups_by_name: dict[tuple[str, str], dict[Selection, WatchGroup]] = {}
        # Groups with changes to hand out, when that will happen, and before when it is not to (loop time).
        self._changed: list[WatchGroup] = []
        self._flush_at: asyncio.Handle | None = None
        self._quiet_until = 0.0

    # --- reading

    def get(self, namespace: str, name: str) -> Entry | None:
        """The current entry, or None."""
        shelf = self._shelves.get(namespace)
        return shelf.entries.get(name) if shelf is not None else None

    def listed(self, namespace: str) -> list[Entry]:
        """All entries, of one namespace or (empty) of all, by namespace and name. A snapshot: do not change it."""
        if namespace:
            shelf = self._shelves.get(namespace)
            return shelf.listed() if shelf is not None else []
        if len(self._shelves) == 1:
            return next(iter(self._shelves.values())).listed()
        out: list[Entry] = []
        for name in sorted(self._shelves):
            out += self._shelves[name].listed()
        return out

    def size(self, namespace: str) -> int:
        """How many entries one namespace or (empty) all have."""
        if not namespace:
            return self.count
        shelf = self._shelves.get(namespace)
        return len(shelf.entries) if shelf is not None else 0

    def select(self, selection: Selection) -> list[Entry]:
        """The entries that are meant, in key order. A snapshot: do not change it."""
        if selection.everything:
            return self.listed(selection.namespace)
        matches = selection.matches
        return [
            entry
            for entry in self._candidates(selection)
            if matches(entry.namespace, entry.name, entry.labels, entry.fields)
        ]

    def _candidates(self, selection: Selection) -> Iterable[Entry]:
        if selection.name and selection.namespace:
            entry = self.get(selection.namespace, selection.name)
            return (entry,) if entry is not None else ()
        value = self.indexed_value(selection)
        if value is not None:
            found = self._by_field.get(value, {})
            return [found[key] for key in sorted(found)]
        return self.listed(selection.namespace)

    def indexed_value(self, selection: Selection) -> str | None:
        """The value that the indexed field must have, if the selection says so."""
        for condition in selection.conditions:
            if condition.position == self._indexed and self._indexed >= 0 and condition.equal:
                return condition.value
        return None

    # --- changing

    def entry(self, event: Event, obj: dict[str, Any] | None = None, old: Entry | None = None) -> Entry:
        """What is kept of a put. `obj` is the decoded object, if the writer still has it. What is the same in `old`,
        which it replaces, is shared with it: memory goes by the bytes, not by what stands beside them."""
        if obj is None:
            obj = codec.decode(event.value)
        metadata = obj["metadata"]
        namespace, name, uid = sys.intern(event.key.namespace), event.key.name, metadata.get("uid", "")
        fields = self._extract(obj)
        if old is not None:
            name, uid = old.name, old.uid if old.uid == uid else uid
        # Nodes, phases, reasons: the same few words in very many objects.
        fields = old.fields if old is not None and old.fields == fields else tuple(map(sys.intern, fields))
        labels = self._labels.shared(metadata.get("labels"))
        return Entry(
            namespace, name, event.revision, event.create_revision, uid, event.value, labels, fields,
            metadata.get("generation") or 0,
        )  # fmt: skip

    def reindex(self, row: Resource) -> None:
        """Take the values of selectable fields from every object again: the definition of a custom resource has changed
        them."""
        extracted = row.extracted or ()
        if extracted == self._extracted:
            return
        self._extracted = extracted
        self._extract = extractor(extracted)
        for shelf in self._shelves.values():
            for entry in list(shelf.entries.values()):
                shelf.put(msgspec.structs.replace(entry, fields=self._extract(codec.decode(entry.value))))

    def load(self, entry: Entry) -> None:
        """Put an entry that was there before this process was."""
        self._shelve(None, entry)

    def apply(self, event: Event, obj: dict[str, Any] | None) -> None:
        """One committed event: change the entries, tell watchers and listeners."""
        key = event.key
        old = self.get(key.namespace, key.name)
        if event.type is EventType.PUT:
            new = self.entry(event, obj, old)
            self._shelve(old, new)
            change = Change(event.revision, old, new, new)
        elif old is None:
            return
        else:
            new = None
            self._unshelve(old)
            change = Change(
                event.revision, old, None, msgspec.structs.replace(old, revision=event.revision, value=event.value)
            )
        self._recent.append(change)
        if len(self._recent) >= 2 * RECENT_CHANGES:
            self.floor = self._recent[RECENT_CHANGES - 1].revision
            del self._recent[:RECENT_CHANGES]
        self._notify(change)
        for listener in self.listeners:
            listener(old, new)

    def _shelve(self, old: Entry | None, new: Entry) -> None:
        shelf = self._shelves.get(new.namespace)
        if shelf is None:
            shelf = self._shelves[new.namespace] = _Shelf()
        shelf.put(new)
        self.count += old is None
        if self._indexed >= 0:
            value = new.fields[self._indexed]
            if old is not None and old.fields[self._indexed] != value:
                self._unindex(old)
            self._by_field.setdefault(value, {})[new.namespace, new.name] = new

    def _unshelve(self, old: Entry) -> None:
        shelf = self._shelves[old.namespace]
        shelf.remove(old.name)
        if not shelf.entries:
            del self._shelves[old.namespace]
        self.count -= 1
        if self._indexed >= 0:
            self._unindex(old)

    def _unindex(self, old: Entry) -> None:
        value = old.fields[self._indexed]
        found = self._by_field[value]
        del found[old.namespace, old.name]
        if not found:
            del self._by_field[value]

    # --- watching

    def watch(self, selection: Selection, after_revision: int) -> Watcher:
        """A watcher that gets every change after a revision that may concern the selection. Raises Expired."""
        if after_revision < self.floor:
            raise errors.Expired(f"too old resource version: {after_revision} ({self.floor})")
        bucket = self._bucket(selection)
        group = bucket.get(selection)
        if group is None:
            group = bucket[selection] = WatchGroup(selection)
        # What the others have still to get, this one gets by its revision.
        group.flush()
        watcher = Watcher(group, self._remove_watcher)
        for batch in batches(self.changes_after(after_revision), selection):
            watcher.add(batch)
        group.watchers[watcher] = None
        self.watchers += 1
        return watcher

    def changes_after(self, revision: int) -> Sequence[Change]:
        """The recent changes after a revision, which must not be before `floor`."""
        recent = self._recent
        low, high = 0, len(recent)
        while low < high:
            middle = (low + high) // 2
            if recent[middle].revision <= revision:
                low = middle + 1
            else:
                high = middle
        return recent[low:]

    def _bucket(self, selection: Selection) -> dict[Selection, WatchGroup]:
        value = self.indexed_value(selection)
        if value is not None:
            return self._groups_by_field.setdefault(value, {})
        if selection.name:
            return self._groups_by_name.setdefault((selection.namespace, selection.name), {})
        return self._groups

    def _remove_watcher(self, watcher: Watcher, group: WatchGroup) -> None:
        self.watchers -= 1
        group.watchers.pop(watcher, None)
        if group.watchers:
            return
        self._bucket(group.selection).pop(group.selection, None)
        for table in (self._groups_by_field, self._groups_by_name):
            for key in [key for key, bucket in table.items() if not bucket]:
                del table[key]  # type: ignore[arg-type]

    def _notify(self, change: Change) -> None:
        if not self.watchers:
            return
        for group in self._groups.values():
            self._gather(group, change)
        if self._groups_by_name:
            last = change.last
            for namespace in (last.namespace, "") if last.namespace else ("",):
                for group in self._groups_by_name.get((namespace, last.name), {}).values():
                    self._gather(group, change)
        if self._groups_by_field:
            values = {entry.fields[self._indexed] for entry in (change.old, change.new) if entry is not None}
            for value in values:
                for group in self._groups_by_field.get(value, {}).values():
                    self._gather(group, change)

    def _gather(self, group: WatchGroup, change: Change) -> None:
        if not group.changes:
            self._changed.append(group)
        group.changes.append(change)
        if self._flush_at is None:
            loop = asyncio.get_running_loop()
            # Also when at once, it is after everything that this turn of the loop applies.
            when = self._quiet_until
            self._flush_at = loop.call_soon(self._flush) if loop.time() >= when else loop.call_at(when, self._flush)

    def _flush(self) -> None:
        self._flush_at = None
        changed, self._changed = self._changed, []
        started = time.perf_counter()
        woken = sum(group.flush() for group in changed)
        seconds = pause(time.perf_counter() - started, woken)
        # To the loop it is still the beginning of this turn.
        self._quiet_until = asyncio.get_running_loop().time() + seconds


class WatchCache:
    """All resources, in step with the store's log."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store = store
        self.registry = registry
        self.revision = 0
        self.caches: dict[str, ResourceCache] = {}
        # Commits whose predecessors have not been applied yet, by revision.
        self._early: dict[int, Event] = {}
        # What is being committed by us, decoded, with the tail by which it is known again; saves decoding what was just
        # encoded.
        self._hints: dict[Key, tuple[bytes, dict[str, Any] | None]] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._load_floor = 0

    def of(self, storage: str) -> ResourceCache:
        """The cache of one storage; made when it is first asked for."""
        cache = self.caches.get(storage)
        if cache is None:
            cache = self.caches[storage] = ResourceCache(storage, self.registry, self._load_floor)
        return cache

    def reindex(self, storage: str) -> None:
        """The row of a custom resource has changed."""
        row = self.registry.by_storage(storage)
        if row is not None and storage in self.caches:
            self.caches[storage].reindex(row)

    async def load(self, first: str = "", then: Callable[[], None] | None = None) -> None:
        """Read the store's state. Call it once, before anything else.

        The storage `first` is read before all others, and `then` called when it has been: definitions before their
        objects.
        """
        revision = await self.store.revision()
        self._load_floor = revision
        storages = sorted(await self.store.resources(), key=lambda storage: storage != first)
        if then is not None and first not in storages:
            then()
        for storage in storages:
            cache = self.of(storage)
            after: tuple[str, str] | None = None
            while True:
                page = await self.store.list(storage, at_revision=revision, after=after, limit=2000)
                for stored in page.entries:
                    event = Event(EventType.PUT, stored.key, stored.revision, stored.create_revision, stored.value)
                    cache.load(cache.entry(event))
                after = page.after
                if after is None:
                    break
            if storage == first and then is not None:
                then()
        self.revision = revision

    async def run(self) -> None:
        """Follow the store's log for ever. Raises Compacted if this process has fallen too far behind: it must start
        again."""
        async for events in self.store.follow(self.revision):
            for event in events:
                if event.revision > self.revision:
                    self._early[event.revision] = event
            self._drain()

    async def commit(self, mutations: Sequence[Mutation], objects: Sequence[dict[str, Any] | None]) -> list[Event]:
        """Commit and apply: when this returns, every read sees it. `objects[i]` is mutation i's object, decoded.

        The cache takes from the objects what selectors need and may keep their label dicts: do not change them
        afterwards.
        """
        hints = self._hints
        for mutation, obj in zip(mutations, objects, strict=True):
            if obj is not None:
                hints[mutation.key] = (mutation.tail, obj)
        try:
            events = await self.store.commit(*mutations)
        except BaseException:
            for mutation in mutations:
                if hints.get(mutation.key, _NO_HINT)[0] is mutation.tail:
                    del hints[mutation.key]
            raise
        for event in events:
            if event.revision > self.revision:
                self._early[event.revision] = event
        self._drain()
        if self.revision < events[-1].revision:
            await self.wait_revision(events[-1].revision, timeout=None)
        return events

    def _drain(self) -> None:
        early = self._early
        while early:
            event = early.pop(self.revision + 1, None)
            if event is None:
                break
            self.revision += 1
            tail, obj = self._hints.pop(event.key, _NO_HINT)
            if obj is not None and not event.value.endswith(tail):
                # Somebody else's write of the same object; ours was refused or comes later.
                obj = None
            self.of(event.key.resource).apply(event, obj)
        if self._waiting:
            for revision, future in self._waiting:
                if revision <= self.revision and not future.done():
                    future.set_result(None)
            self._waiting = [item for item in self._waiting if not item[1].done()]

    async def wait_revision(self, revision: int, timeout: float | None = FRESH_SECONDS_MAX) -> None:
        """Wait until the cache has seen a revision. Raises Timeout, as upstream does for a revision of the future."""
        if self.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise errors.Timeout(
                f"Too large resource version: {revision}, current: {self.revision}",
                causes=[errors.Cause("ResourceVersionTooLarge", "Too large resource version")],
                retry_after_seconds=1,
            ) from None
