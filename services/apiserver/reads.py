"""GET, LIST and WATCH, answered from the watch cache: bytes in, bytes out, nothing decoded.

What a resourceVersion means (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions):

    GET    ""  newest   "0" anything    N  at least as new as N
    LIST   ""  newest   "0" anything    N  at least N (NotOlderThan, the default) or exactly N (Exact)
    WATCH  ""  state, then changes      "0" the same    N  changes after N

This cache is never behind what this apiserver acknowledged. Where others write to the same database, `freshness` has
made it wait for theirs before "newest" is answered; "anything" is answered as it is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from machinery.api import errors
from services.apiserver import codec, component_status, conversion, go_text, scale
from services.apiserver.continuation import TOO_OLD, Continuation, Snapshots
from services.apiserver.entries import Entry
from services.apiserver.late_selection import LateSelection, split
from services.apiserver.registry.resource import Resource
from services.apiserver.request import ListOptions, Request, WatchOptions
from services.apiserver.selection import Selection, select
from services.apiserver.watch_cache import WatchCache
from services.apiserver.watcher import EVENTS_PER_BATCH, Batch, Change, Events, Watcher, WatchEvent, batches
from storage.errors import Compacted, FutureRevision
from storage.store import Event, EventType, Key

Entries = list[Entry]

BOOKMARK_SECONDS = 55.0
"""A bookmark is due about once a minute."""
WATCH_SECONDS_MIN = 1800
"""Without a timeout of its own a watch ends after 30 to 60 minutes, so that clients spread over the apiservers
again."""
CATCH_UP_MAX = 10_000
"""How many changes a watch may read from the log when it resumes; beyond that a list is cheaper."""


@dataclass(slots=True)
class ListResult:
    """A list as of `revision`. `remaining` is None where it is not known."""

    entries: list[Entry]
    revision: int
    continue_token: str = ""
    remaining: int | None = None
    # The objects' JSON where the served version is not the stored one; see `Reader.convert`.
    converted: list[bytes] | None = None

    @property
    def items(self) -> list[bytes]:
        """The objects' JSON, in order."""
        return self.converted if self.converted is not None else [entry.value for entry in self.entries]


def _computed(name: str, value: bytes) -> Entry:
    """An object that nobody stored, as lists hold theirs."""
    return Entry("", name, 0, 0, "", value, None, ())


class Reader:
    """Answers reads."""

    def __init__(self, cache: WatchCache) -> None:
        self.cache = cache
        self._snapshots = Snapshots(cache.store)

    # --- one

    async def get(self, req: Request, resource_version: str, at_revision: int) -> bytes:
        """The object's JSON."""
        resource = req.resource
        if resource.virtual:
            return self._component_status(req)
        if at_revision:
            value = await self._get_at(req, at_revision)
        else:
            if resource_version not in ("", "0"):
                await self.cache.wait_revision(_revision(resource_version))
            entry = self.cache.of(resource.storage).get(req.namespace, req.name)
            if entry is None:
                raise resource.not_found(req.name)
            value = entry.value
        if not resource.as_stored:
            value = await conversion.served(resource, value)
        if req.subresource == "scale":
            return scale.to_scale(resource, codec.decode(value))
        return value

    async def _get_at(self, req: Request, revision: int) -> bytes:
        key = Key(req.resource.storage, req.namespace, req.name)
        try:
            stored = await self.cache.store.get(key, at_revision=revision)
        except Compacted as err:
            raise errors.Expired(f"too old resource version: {revision} ({err.oldest})") from err
        except FutureRevision as err:
            raise errors.BadRequest(f"revision {revision} has not happened: the newest is {err.newest}") from err
        if stored is None:
            raise req.resource.not_found(req.name)
        return stored.value

    async def history(self, req: Request, limit: int, at_revision: int) -> Sequence[Event]:
        """What the log has of one object, newest first."""
        key = Key(req.resource.storage, req.namespace, req.name)
        events = await self.cache.store.history(key, limit=limit, at_revision=at_revision)
        if not events:
            raise req.resource.not_found(req.name)
        return events

    async def compact(self, revision: int) -> tuple[int, int]:
        """Forget history; where it begins now, and how many log entries went."""
        revision = revision or self.cache.revision
        try:
            removed = await self.cache.store.compact(revision)
        except FutureRevision as err:
            raise errors.BadRequest(f"revision {revision} has not happened: the newest is {err.newest}") from err
        return await self.cache.store.compacted_revision(), removed

    async def follow(self, after_revision: int) -> AsyncIterator[tuple[int, Sequence[Event]]]:
        """(revision that has been told up to, writes), at once without any, then as they are committed."""
        after = after_revision or self.cache.revision
        try:
            yield after, ()
            async for events in self.cache.store.follow(after):
                yield events[-1].revision, events
        except FutureRevision as err:
            raise errors.BadRequest(f"revision {after} has not happened: the newest is {err.newest}") from err
        except Compacted as err:
            raise errors.Expired(f"the writes after revision {after} are not kept any more") from err

    # --- what is computed

    def _component_status(self, req: Request) -> bytes:
        if req.name not in component_status.names():
            raise req.resource.not_found(req.name)
        return component_status.status_of(req.name, self._decoded, datetime.now(UTC))

    def _component_statuses(self, req: Request, options: ListOptions) -> ListResult:
        chosen = select(req.resource, "", req.name, options.label_selector, options.field_selector)
        now = datetime.now(UTC)
        # They have no labels: a selector that asks for one finds nothing.
        names = [name for name in component_status.names() if chosen.name in ("", name) and not options.label_selector]
        entries = [_computed(name, component_status.status_of(name, self._decoded, now)) for name in names]
        return ListResult(entries, self.cache.revision)

    def _decoded(self, storage: str, namespace: str, name: str) -> dict[str, Any] | None:
        entry = self.cache.of(storage).get(namespace, name)
        return codec.decode(entry.value) if entry is not None else None

    # --- many

    async def list(self, req: Request, options: ListOptions) -> ListResult:
        """The objects that are selected, as they are stored; `convert` brings them to the version of the request."""
        resource = req.resource
        check_list_options(options)
        if resource.virtual:
            return self._component_statuses(req, options)
        selection = select(resource, req.namespace, req.name, options.label_selector, options.field_selector)
        selection, late = split(resource, selection)
        if options.continue_token:
            page = await self._continued(resource, selection, options)
        elif options.resource_version_match == "Exact":
            revision = _revision(options.resource_version)
            entries = await self._snapshots.at(self.cache, resource, selection.namespace, revision)
            page = self._page(resource, selection, entries, revision, options.limit, "")
        else:
            if options.resource_version not in ("", "0"):
                await self.cache.wait_revision(_revision(options.resource_version))
            cache = self.cache.of(resource.storage)
            revision = self.cache.revision
            limit = 0 if options.resource_version == "0" else options.limit
            if not limit:
                page = ListResult(cache.select(selection), revision)
            else:
                page = self._page(resource, selection, cache.listed(selection.namespace), revision, limit, "")
        if late is not None:
            chosen = await late.chosen(page.entries)
            page.entries, page.converted = [entry for entry, _ in chosen], [value for _, value in chosen]
            page.remaining = None
        return page

    async def convert(self, resource: Resource, page: ListResult) -> ListResult:
        """The same page with its items as the version that `resource` serves. Raises InternalError if a webhook
        fails.
        """
        if not resource.as_stored and page.converted is None:
            page.converted = await conversion.served_all(resource, [entry.value for entry in page.entries])
        return page

    async def _continued(self, resource: Resource, selection: Selection, options: ListOptions) -> ListResult:
        token = Continuation.parse(options.continue_token)
        entries: Sequence[Entry]
        if token.revision < 0:
            # The client accepted an inconsistent continuation, from the newest state.
            entries, revision = self.cache.of(resource.storage).listed(selection.namespace), self.cache.revision
        else:
            revision = token.revision
            try:
                if token.expired:
                    raise errors.Expired(TOO_OLD)
                entries = await self._snapshots.at(self.cache, resource, selection.namespace, revision)
            except errors.Expired as err:
                err.continue_token = Continuation(-1, token.after).text()
                raise
        began = token.began if token.revision >= 0 else 0
        return self._page(resource, selection, entries, revision, options.limit, token.after, began)

    def _page(
        self, resource: Resource, selection: Selection, entries: Sequence[Entry], revision: int, limit: int, after: str,
        began: int = 0,
    ) -> ListResult:  # fmt: skip
        """At most `limit` selected entries after a key. Remembers the snapshot if more remain."""
        start = _position_after(entries, after) if after else 0
        chosen: Entries = []
        for index in range(start, len(entries)):
            entry = entries[index]
            if selection.everything or selection.matches(entry.namespace, entry.name, entry.labels, entry.fields):
                if limit and len(chosen) == limit:
                    self._snapshots.keep(resource.storage, selection.namespace, revision, entries)
                    token = Continuation(revision, _key_text(chosen[-1]), began or int(time.time())).text()
                    remaining = len(entries) - index if selection.everything else None
                    return ListResult(chosen, revision, token, remaining)
                chosen.append(entry)
        return ListResult(chosen, revision)

    # --- changes

    def watch(self, req: Request, options: WatchOptions) -> WatchStream:
        """A stream of events. Judges the options at once."""
        resource = req.resource
        selection = select(resource, req.namespace, req.name, options.label_selector, options.field_selector)
        selection, late = split(resource, selection)
        check_watch_options(resource, options)
        cache = self.cache.of(resource.storage)
        initial: list[Entry] = []
        version = options.resource_version
        ahead = 0
        begin_with_state = version in ("", "0") or options.send_initial_events
        if begin_with_state and version not in ("", "0") and _revision(version) > self.cache.revision:
            raise _too_large(_revision(version), self.cache.revision)
        if begin_with_state:
            if options.send_initial_events is not False:
                initial = cache.select(selection)
            watcher = cache.watch(selection, self.cache.revision)
        else:
            after = _revision(version)
            if after < cache.floor:
                # The cache has not seen it: this process was started since, or much has happened.
                seconds = options.timeout_seconds or WATCH_SECONDS_MIN
                watcher = cache.watch(selection, self.cache.revision)
                return WatchStream(
                    self.cache, resource, watcher, initial, seconds, options, late=late, catch_up_after=after
                )
            watcher = cache.watch(selection, after)
            ahead = after if after > self.cache.revision else 0
        seconds = options.timeout_seconds or random.uniform(WATCH_SECONDS_MIN, 2 * WATCH_SECONDS_MIN)  # noqa: S311
        return WatchStream(self.cache, resource, watcher, initial, seconds, options, late=late, ahead=ahead)


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
        raise _too_large(after, cache.revision) from err
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


def check_list_options(options: ListOptions) -> None:
    """Refuse combinations that upstream refuses. Raises BadRequest or Invalid."""
    match, version = options.resource_version_match, options.resource_version
    if match:
        causes = []
        if not version:
            causes.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if options.continue_token:
            causes.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            causes.append(_unsupported(match, '"Exact", "NotOlderThan", ""'))
        if match == "Exact" and version == "0":
            causes.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
        _refuse(causes)
    if options.continue_token and version not in ("", "0"):
        raise errors.BadRequest("specifying resource version is not allowed when using continue")
    if version:
        try:
            go_text.uint64(version)
        except ValueError as err:
            raise errors.BadRequest(f"invalid resource version: {_version_cause(version, err)}") from err


def check_watch_options(resource: Resource, options: WatchOptions) -> None:
    """Refuse combinations that upstream refuses. Raises Invalid."""
    match, version = options.resource_version_match, options.resource_version
    causes = []
    if options.send_initial_events is not None and match != "NotOlderThan":
        causes.append(_forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match:
        if options.send_initial_events is None:
            causes.append(
                _forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
            )
        if match != "NotOlderThan":
            causes.append(_unsupported(match, '"NotOlderThan"'))
    _refuse(causes)
    if version:
        try:
            go_text.uint64(version)
        except ValueError as err:
            why = f"Invalid value: {go_text.quoted(version)}: {err}"
            cause = errors.Cause("FieldValueInvalid", why, "resourceVersion")
            raise errors.invalid(resource.group, resource.plural, "", [cause]) from err


def _forbidden(why: str) -> errors.Cause:
    return errors.Cause("FieldValueForbidden", f"Forbidden: {why}", "resourceVersionMatch")


def _unsupported(match: str, known: str) -> errors.Cause:
    why = f"Unsupported value: {go_text.quoted(match)}: supported values: {known}"
    return errors.Cause("FieldValueNotSupported", why, "resourceVersionMatch")


def _refuse(causes: list[errors.Cause]) -> None:
    if causes:
        raise errors.invalid("meta.k8s.io", "ListOptions", "", causes)


def _version_cause(text: str, why: ValueError) -> str:
    return f"resourceVersion: Invalid value: {go_text.quoted(text)}: {why}"


def _revision(text: str) -> int:
    try:
        return go_text.uint64(text)
    except ValueError as err:
        raise errors.BadRequest(_version_cause(text, err)) from err


def _too_large(wanted: int, current: int) -> errors.Timeout:
    cause = errors.Cause("ResourceVersionTooLarge", "Too large resource version")
    return errors.Timeout(
        f"Too large resource version: {wanted}, current: {current}", causes=[cause], retry_after_seconds=1
    )


def _key_text(entry: Entry) -> str:
    return f"{entry.namespace}/{entry.name}"


def _position_after(entries: Sequence[Entry], after: str) -> int:
    namespace, _, name = after.partition("/")
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if (entries[middle].namespace, entries[middle].name) <= (namespace, name):
            low = middle + 1
        else:
            high = middle
    return low
