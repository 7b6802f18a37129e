"""One watch: the changes that it has not sent yet, and what they look like through its selectors.

    change            old selected   new selected   event
    created           -              yes            ADDED
    changed           yes            yes            MODIFIED
    changed           no             yes            ADDED
    changed           yes            no             DELETED, with the old bytes at the change's revision
    deleted           yes            -              DELETED, with the last bytes at the deletion's revision

A watcher holds references to shared changes, so it costs a pointer a change; one that falls `PENDING_MAX` behind is
lost, never waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from machinery.api import errors
from services.apiserver import codec

if TYPE_CHECKING:
    from services.apiserver.registry.resource import Resource
    from services.apiserver.selection import Selection
    from services.apiserver.watch_cache import Entry

RECENT_CHANGES = 4096
"""How many changes of a resource are kept at least, so that a watch can be resumed; at most twice as many."""
PENDING_MAX = 20_000
"""How many changes a watcher may be behind."""

_PREFIX = {kind: f'{{"type":"{kind}","object":'.encode() for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")}


class WatchEvent:
    """One event as clients see it. Shared by all watchers that see a change the same way."""

    __slots__ = ("_frame", "entry", "json", "revision", "type")

    def __init__(self, event_type: str, json: bytes, revision: int, entry: Entry | None) -> None:
        self.type = event_type
        self.json = json
        self.revision = revision
        # None for a bookmark.
        self.entry = entry
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The line that a REST watch sends."""
        frame = self._frame
        if frame is None:
            frame = self._frame = b"%b%b}\n" % (_PREFIX[self.type], self.json)
        return frame


class Change:
    """One committed change. `last` is the entry to show: the new one, or for a deletion the old one at the deletion's
    revision."""

    __slots__ = ("_event", "last", "new", "old", "revision")

    def __init__(self, revision: int, old: Entry | None, new: Entry | None, last: Entry) -> None:
        self.revision = revision
        self.old = old
        self.new = new
        self.last = last
        self._event: WatchEvent | None = None

    @property
    def event(self) -> WatchEvent:
        """The event for who selects the object both before and after."""
        event = self._event
        if event is None:
            kind = "DELETED" if self.new is None else "ADDED" if self.old is None else "MODIFIED"
            event = self._event = WatchEvent(kind, self.last.value, self.revision, self.last)
        return event

    def seen_by(self, selection: Selection, resource: Resource) -> WatchEvent | None:
        """The event for a selection; None if it concerns neither state."""
        old, new = self.old, self.new
        matches = selection.matches
        was = old is not None and matches(old.namespace, old.name, old.labels, old.fields)
        is_now = new is not None and matches(new.namespace, new.name, new.labels, new.fields)
        if was and (is_now or new is None):
            return self.event
        if is_now:
            assert new is not None
            return self.event if old is None else WatchEvent("ADDED", new.value, self.revision, new)
        if was:
            assert old is not None
            json = codec.with_revision(old.value, self.revision)
            return WatchEvent("DELETED", json, self.revision, old)
        return None


class Watcher:
    """Collects changes until they are taken. One task at a time takes."""

    __slots__ = ("_closed", "_on_close", "_waiter", "lost", "pending", "selection")

    def __init__(self, selection: Selection, on_close: Callable[[Watcher], None]) -> None:
        self.selection = selection
        self.pending: list[Change] = []
        self.lost = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_close = on_close
        self._closed = False

    def add(self, change: Change) -> None:
        """A change that may concern it."""
        pending = self.pending
        if len(pending) >= PENDING_MAX:
            self.lost = True
            pending.clear()
        if not self.lost:
            pending.append(change)
        self.wake()

    def wake(self) -> None:
        """Let `take` return, also with nothing."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self, deadline: float) -> list[Change]:
        """What has come since, at once if there is anything; empty at the deadline (loop time). Raises Expired if it
        was too slow."""
        if not self.pending and not self.lost and not self._closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_at(deadline, self.wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self.lost:
            raise errors.Expired("the watcher was too slow: list again")
        taken, self.pending = self.pending, []
        return taken

    def close(self) -> None:
        """No more changes, please. Idempotent."""
        if not self._closed:
            self._closed = True
            self.pending = []
            self._on_close(self)
            self.wake()
