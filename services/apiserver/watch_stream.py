"""One watch as its client takes it: what the store's log has to say first, the present state, then changes and
bookmarks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from machinery.api import errors
from services.apiserver import conversion
from services.apiserver.entries import Entry
from services.apiserver.late_selection import LateSelection
from services.apiserver.read_options import too_large
from services.apiserver.registry.resource import Resource
from services.apiserver.request import WatchOptions
from services.apiserver.watch_cache import WatchCache
from services.apiserver.watcher import EVENTS_PER_BATCH, Batch, Change, Events, Watcher, WatchEvent, batches
from storage.errors import Compacted, FutureRevision
from storage.store import EventType

BOOKMARK_SECONDS = 55.0
"""A bookmark is due about once a minute."""
CATCH_UP_MAX = 10_000
"""How many changes a watch may read from the log when it resumes; beyond that a list is cheaper."""


class WatchStream:
    """An async iterator over batches of events. Close it when the client goes; it closes itself at its end and on
    errors."""

    def __init__(
        self,
        cache: WatchCache,
        resource: Resource,
        watcher: Watcher,
        initial: list[Entry],
        seconds: float,
        options: WatchOptions,
        *,
        late: LateSelection | None = None,
        catch_up_after: int | None = None,
        ahead: int = 0,
    ) -> None:
        self._cache = cache
        # Changes after this revision and up to `revision` come from the store's log first.
        self._catch_up_after = catch_up_after
        self._resource = resource
        self._watcher = watcher
        # Called when it is closed, perhaps more than once.
        self.on_close: Callable[[], None] | None = None
        self._initial = initial
        self._bookmarks = options.allow_bookmarks
        # The state is complete only with the bookmark that says so.
        self._announce_end = bool(options.send_initial_events) and options.allow_bookmarks
        now = asyncio.get_running_loop().time()
        self._end = now + seconds
        self._next_bookmark = now + BOOKMARK_SECONDS if self._bookmarks else self._end
        self._late = late
        self._convert = not resource.as_stored and late is None
        # What the store's log has to say first.
        self._backlog: deque[Batch] = deque()
        # The client has seen up to here, at another apiserver; this one's cache has yet to get there.
        self._ahead = ahead
        # Everything up to this revision has been handed out (or does not concern this watch).
        self.revision = max(cache.revision, ahead)

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> Events:
        try:
            events = await self._next()
        except BaseException:
            await self.aclose()
            raise
        return await self._converted(events) if self._convert else events

    async def _next(self) -> Events:
        if self._catch_up_after is not None:
            changes = await logged_changes(self._cache, self._resource.storage, self._catch_up_after, self.revision)
            self._backlog.extend(batches(changes, self._watcher.selection))
            self._catch_up_after = None
        while self._initial:
            part, self._initial = self._initial[:EVENTS_PER_BATCH], self._initial[EVENTS_PER_BATCH:]
            if self._late is None:
                return Events(WatchEvent("ADDED", entry.value, entry.revision, entry) for entry in part)
            events = Events(await self._late.initial(part))
            if events:
                return events
        if self._announce_end:
            self._announce_end = False
            return Events((self._bookmark(self.revision, initial_events_end=True),))
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._taken()
            if batch is not None:
                late = self._late
                events = batch.events if late is None else Events(await late.events(batch.changes, batch.selection))
                if events:
                    return events
            now = loop.time()
            if now >= self._end:
                raise StopAsyncIteration
            if now >= self._next_bookmark:
                self._next_bookmark = now + BOOKMARK_SECONDS
                return Events((self._bookmark(self.revision),))

    async def _taken(self) -> Batch | None:
        """The next changes, a bounded number at a time; None at a deadline."""
        if self._backlog:
            batch: Batch | None = self._backlog.popleft()
        else:
            batch = await self._watcher.take(min(self._next_bookmark, self._end))
        if not self._backlog and self._watcher.up_to_date:
            self.revision = self._cache.revision
        elif batch is not None:
            self.revision = batch.revision
        if self._ahead:
            batch = self._after_ahead(batch)
        return batch

    def _after_ahead(self, batch: Batch | None) -> Batch | None:
        """What of a batch the client has not seen at the apiserver where it was before."""
        if batch is not None and batch.changes[0].revision <= self._ahead:
            changes = [change for change in batch.changes if change.revision > self._ahead]
            batch = Batch(changes, batch.selection) if changes else None
        if self.revision < self._ahead:
            self.revision = self._ahead
        else:
            self._ahead = 0
        return batch

    def push_to(self, send: Callable[[Events], bool]) -> None:
        """From now on hand changes to `send` as they come, while this is being iterated and has nothing else to say:
        waking a task for each batch costs more than sending it.

        `send` must not raise, and says False where it can't take any now. Those come by iteration, as do those that
        have to be converted or selected late, bookmarks, errors and the end; always in order.
        """
        if self._convert or self._late is not None:
            return

        def push(batch: Batch) -> bool:
            if self._ahead:
                return False
            events = batch.events
            if events and not send(events):
                return False
            self.revision = batch.revision
            return True

        self._watcher.push = push

    async def aclose(self) -> None:
        """No more events. Idempotent."""
        self._watcher.close()
        if self.on_close is not None:
            self.on_close()

    def _bookmark(self, revision: int, *, initial_events_end: bool = False) -> WatchEvent:
        kind = self._resource.kind
        annotations = ',"annotations":{"k8s.io/initial-events-end":"true"}' if initial_events_end else ""
        json = (
            f'{{"apiVersion":"{kind.api_version}","kind":"{kind.kind}",'
            f'"metadata":{{"resourceVersion":"{revision}","creationTimestamp":null{annotations}}}}}'
        )
        return WatchEvent("BOOKMARK", json.encode(), revision, None)

    async def _converted(self, events: Sequence[WatchEvent]) -> Events:
        """Events as the version that is watched; bookmarks are made as that already."""
        try:
            values = await conversion.served_all(self._resource, [e.json for e in events if e.entry is not None])
        except BaseException:
            await self.aclose()
            raise
        fresh = iter(values)
        return Events(
            event if event.entry is None else WatchEvent(event.type, next(fresh), event.revision, event.entry)
            for event in events
        )


async def logged_changes(cache: WatchCache, storage: str, after: int, until: int) -> list[Change]:
    """A storage's changes after a revision and up to another, from the store's log. Raises Expired."""
    expired = errors.Expired(f"too old resource version: {after} ({cache.of(storage).floor})")
    try:
        events = await cache.store.events(after, resource=storage, limit=CATCH_UP_MAX + 1)
    except Compacted as err:
        raise expired from err
    except FutureRevision as err:
        raise too_large(after, cache.revision) from err
    if len(events) > CATCH_UP_MAX:
        raise expired
    entry_of = cache.of(storage).entry
    changes: list[Change] = []
    for event in events:
        if event.revision > until:
            break
        created = event.type is EventType.PUT and event.create_revision == event.revision
        if event.previous is None and not created:
            raise expired
        last = entry_of(event)
        old = None if created else entry_of(replace(event, value=event.previous or b""))
        changes.append(Change(event.revision, old, last if event.type is EventType.PUT else None, last))
    return changes
