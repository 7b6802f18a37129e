"""Watches: the changes that they have not sent yet, and what these look like through their selectors.

    change -> WatchGroup (one for each selection) -flush-> Batch (shared) -> each Watcher -push-> client
                                                                                  |
                                                                                  +-take-> its stream -> client

Fifty clients that watch the same thing cost one look through the selectors and one encoding; each of them costs only
the sending. That is done on the spot (`push`) for a client that has taken all that came before; what one can't take now
waits for its task (`take`). A flush comes at once after a quiet time, and not too soon after another one (`pause`), so
that many watchers get fewer and larger batches rather than all of the server's time.

    change            old selected   new selected   event
    created           -              yes            ADDED
    changed           yes            yes            MODIFIED
    changed           no             yes            ADDED
    changed           yes            no             DELETED, with the old bytes at the change's revision
    deleted           yes            -              DELETED, with the last bytes at the deletion's revision

A watcher holds references to shared batches; one that falls `PENDING_MAX` changes behind is lost, never waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from machinery.api import errors
from services.apiserver import codec

if TYPE_CHECKING:
    from services.apiserver.entries import Entry
    from services.apiserver.selection import Selection

RECENT_CHANGES = 4096
"""How many changes of a resource are kept at least, so that a watch can be resumed; at most twice as many."""
PENDING_MAX = 20_000
"""How many changes a watcher may be behind."""
EVENTS_PER_BATCH = 500
"""A batch is sent in one piece: this bounds its size, and how long encoding it takes."""
SECONDS_A_TASK = 0.00003
"""About what a watcher costs after a flush whose task is woken to send (TLS and a system call, which no sharing saves,
included); what is sent on the spot is measured."""
PAUSE_SECONDS_MAX = 0.25
"""Reached with ten thousand watchers of one thing, which it takes the server as long to serve."""

_HEADS = {
    kind: b'{"type":"%b","object":' % kind.encode() for kind in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")
}


def line(event_type: str, obj: bytes) -> bytes:
    """An event as a REST watch sends it. Not kept with the event: `Events.wire` is what is shared, and goes with its
    batch, whereas this would be a second copy of all recent changes."""
    return b"%b%b}\n" % (_HEADS[event_type], obj)


def pause(sending_seconds: float, woken: int) -> float:
    """How long after the beginning of a flush the next may begin: twice what this one took, so that sending takes at
    most about half of the time. With fifty watchers of one thing an event waits a millisecond or two, if others came
    just before it; a node that alone watches its pods waits for nobody else's.
    """
    return min(PAUSE_SECONDS_MAX, 2 * (sending_seconds + woken * SECONDS_A_TASK))


class WatchEvent:
    """One event as clients see it. Shared by all watchers that see a change the same way."""

    __slots__ = ("entry", "json", "revision", "type")

    def __init__(self, event_type: str, json: bytes, revision: int, entry: Entry | None) -> None:
        self.type = event_type
        self.json = json
        self.revision = revision
        # None for a bookmark.
        self.entry = entry


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

    def seen_by(self, selection: Selection) -> WatchEvent | None:
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


class Events(list[WatchEvent]):
    """Events that go out together. `wire` is for the transport: what it made of them, for all that send the same."""

    __slots__ = ("wire",)

    def __init__(self, events: Iterable[WatchEvent] = ()) -> None:
        super().__init__(events)
        self.wire: bytes | None = None


class Batch:
    """Changes in a row, at most EVENTS_PER_BATCH, and the events that one selection sees of them."""

    __slots__ = ("_events", "changes", "selection")

    def __init__(self, changes: Sequence[Change], selection: Selection) -> None:
        self.changes = changes
        self.selection = selection
        self._events: Events | None = None

    @property
    def events(self) -> Events:
        """What to send, looked up once for all watchers."""
        events = self._events
        if events is None:
            selection = self.selection
            if selection.everything and not selection.namespace:
                events = Events(change.event for change in self.changes)
            else:
                seen = (change.seen_by(selection) for change in self.changes)
                events = Events(event for event in seen if event is not None)
            self._events = events
        return events

    @property
    def revision(self) -> int:
        """Of the last change."""
        return self.changes[-1].revision


def batches(changes: Sequence[Change], selection: Selection) -> Iterator[Batch]:
    """Changes as batches of a bounded size."""
    for start in range(0, len(changes), EVENTS_PER_BATCH):
        yield Batch(changes[start : start + EVENTS_PER_BATCH], selection)


class WatchGroup:
    """The watchers of one selection, and the changes that none of them has been given yet."""

    __slots__ = ("changes", "selection", "watchers")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        # In the order in which they came: whoever has watched longest is told first.
        self.watchers: dict[Watcher, None] = {}
        self.changes: list[Change] = []

    def flush(self) -> int:
        """Give the changes to the watchers; how many of their tasks have to be woken for them."""
        changes, woken = self.changes, 0
        if changes:
            self.changes = []
            for batch in batches(changes, self.selection):
                for watcher in self.watchers:
                    woken += not watcher.add(batch)
        return woken


class Watcher:
    """Collects batches until they are taken. One task at a time takes.

    While that task waits for the next batch, `push` is asked first to send it on the spot, and says whether it did.
    """

    __slots__ = ("_behind", "_closed", "_group", "_on_close", "_pending", "_waiter", "lost", "push")

    def __init__(self, group: WatchGroup, on_close: Callable[[Watcher, WatchGroup], None]) -> None:
        self.lost = False
        self.push: Callable[[Batch], bool] | None = None
        self._group = group
        self._pending: deque[Batch] = deque()
        # How many changes are pending.
        self._behind = 0
        self._waiter: asyncio.Future[None] | None = None
        self._on_close = on_close
        self._closed = False

    @property
    def selection(self) -> Selection:
        """What is watched."""
        return self._group.selection

    @property
    def up_to_date(self) -> bool:
        """Whether everything that has happened has been taken."""
        return not self._pending and not self._group.changes

    def add(self, batch: Batch) -> bool:
        """What comes next; whether it has been sent already."""
        waiter = self._waiter
        if self.push is not None and waiter is not None and not waiter.done() and self.push(batch):
            return True
        self._behind += len(batch.changes)
        if self._behind > PENDING_MAX:
            self.lost = True
            self._pending.clear()
        if not self.lost:
            self._pending.append(batch)
        self.wake()
        return False

    def wake(self) -> None:
        """Let `take` return, also with nothing."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self, deadline: float) -> Batch | None:
        """The next batch, at once if there is one; None at the deadline (loop time), and then `up_to_date`. Raises
        Expired if it was too slow."""
        pending = self._pending
        if not pending and not self.lost and not self._closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_at(deadline, self.wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not pending:
                self._group.flush()
        if self.lost:
            raise errors.Expired("the watcher was too slow: list again")
        if not pending:
            return None
        first = pending.popleft()
        if pending:
            first = self._merged(first)
        self._behind -= len(first.changes)
        return first

    def _merged(self, first: Batch) -> Batch:
        """One batch of several small ones: who is slow gets more at a time."""
        pending, count, parts = self._pending, len(first.changes), [first.changes]
        while pending and count + len(pending[0].changes) <= EVENTS_PER_BATCH:
            part = pending.popleft().changes
            parts.append(part)
            count += len(part)
        return first if len(parts) == 1 else Batch([change for part in parts for change in part], self.selection)

    def close(self) -> None:
        """No more changes, please. Idempotent."""
        if not self._closed:
            self._closed = True
            self._pending.clear()
            self._on_close(self, self._group)
            self.wake()
