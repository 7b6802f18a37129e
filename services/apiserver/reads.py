"""GET, LIST and WATCH, answered from the watch cache: bytes in, bytes out, nothing decoded.

What a resourceVersion means (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions):

    GET    ""  newest   "0" anything    N  at least as new as N
    LIST   ""  newest   "0" anything    N  at least N (NotOlderThan, the default) or exactly N (Exact)
    WATCH  ""  state, then changes      "0" the same    N  changes after N

This cache is never behind what this apiserver acknowledged. Where others write to the same database, `freshness` has
made it wait for theirs before "newest" is answered; "anything" is answered as it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from machinery.api import errors
from services.apiserver import codec, component_status, conversion, scale
from services.apiserver.continuation import TOO_OLD, Continuation, Snapshots
from services.apiserver.entries import Entry
from services.apiserver.late_selection import split
from services.apiserver.read_options import check_list_options, check_watch_options, revision_of, too_large
from services.apiserver.registry.resource import Resource
from services.apiserver.request import ListOptions, Request, WatchOptions
from services.apiserver.selection import Selection, select
from services.apiserver.watch_cache import WatchCache
from services.apiserver.watch_stream import WatchStream
from storage.errors import Compacted, FutureRevision
from storage.store import Event, Key

Entries = list[Entry]

WATCH_SECONDS_MIN = 1800
"""Without a timeout of its own a watch ends after 30 to 60 minutes, so that clients spread over the apiservers
again."""


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
                await self.cache.wait_revision(revision_of(resource_version))
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
            revision = revision_of(options.resource_version)
            entries = await self._snapshots.at(self.cache, resource, selection.namespace, revision)
            page = self._page(resource, selection, entries, revision, options.limit, "")
        else:
            if options.resource_version not in ("", "0"):
                await self.cache.wait_revision(revision_of(options.resource_version))
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
        if begin_with_state and version not in ("", "0") and revision_of(version) > self.cache.revision:
            raise too_large(revision_of(version), self.cache.revision)
        if begin_with_state:
            if options.send_initial_events is not False:
                initial = cache.select(selection)
            watcher = cache.watch(selection, self.cache.revision)
        else:
            after = revision_of(version)
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
