"""Following the log: every event once, in order, in batches.

A follower reads from the database until it has reached what the hub has announced, and takes the hub's batches from
there. One that does not keep up loses its queue and reads from the database again, so a slow follower costs a bounded
amount of memory and never blocks a writer; it gets Compacted once the log no longer has what comes next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from storage.errors import Unavailable
from storage.store import Event

QUEUE_EVENTS_MAX = 16384
"""What a follower may leave in its queue before it has to read from the log instead."""

READ_EVENTS_MAX = 1000
"""Events a follower reads from the log at a time."""

ReadLog = Callable[[int, int], Awaitable[Sequence[Event]]]
"""(after_revision, limit) -> events of the log. Raises Compacted."""


class _Follower:
    """The queue of one follower. Invariant: its batches begin right after `since` and have no gap, unless `lost`."""

    def __init__(self) -> None:
        self.batches: deque[Sequence[Event]] = deque()
        self.count = 0
        self.lost = False
        self.wake = asyncio.Event()

    def put(self, batch: Sequence[Event]) -> None:
        if self.lost:
            return
        self.count += len(batch)
        if self.count > QUEUE_EVENTS_MAX and self.batches:
            self.lose()
        else:
            self.batches.append(batch)
            self.wake.set()

    def lose(self) -> None:
        self.lost = True
        self.batches.clear()
        self.wake.set()

    def restart(self) -> None:
        self.batches.clear()
        self.count = 0
        self.lost = False
        self.wake.clear()

    async def take(self) -> Sequence[Event] | None:
        """The next batch, or None if the queue was lost."""
        while not self.batches:
            if self.lost:
                return None
            self.wake.clear()
            await self.wake.wait()
        batch = self.batches.popleft()
        self.count -= len(batch)
        return batch


class Hub:
    """Hands events of the log to followers. Invariant: all events up to `newest` have been handed out, and none after
    it.
    """

    def __init__(self, newest: int, read: ReadLog) -> None:
        self.newest = newest
        self._read = read
        self._followers: set[_Follower] = set()
        self._closed = False

    def publish(self, events: Sequence[Event]) -> bool:
        """Hand out what comes next in the log; False if it isn't next, and events in between have to be read first."""
        if not events or events[-1].revision <= self.newest:
            return True
        if events[0].revision > self.newest + 1:
            return False
        if events[0].revision <= self.newest:
            events = [event for event in events if event.revision > self.newest]
        self.newest = events[-1].revision
        for follower in self._followers:
            follower.put(events)
        return True

    def skip(self, newest: int) -> None:
        """Go on after a gap that can't be read any more: every follower has to look into the log, and finds it
        compacted.
        """
        self.newest = max(self.newest, newest)
        for follower in self._followers:
            follower.lose()

    async def follow(self, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        """See Store.follow. `after_revision` must not be later than `newest`."""
        assert after_revision <= self.newest
        follower = _Follower()
        self._followers.add(follower)
        try:
            position = after_revision
            while not self._closed:
                follower.restart()
                announced = self.newest
                while position < announced:
                    events = await self._read(position, min(READ_EVENTS_MAX, announced - position))
                    if not events:
                        # Nothing is left out but what a restore has skipped.
                        position = announced
                        break
                    position = events[-1].revision
                    yield events
                while (batch := await follower.take()) is not None:
                    position = batch[-1].revision
                    yield batch
            raise Unavailable("the store is closed")
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """Every follower gets Unavailable."""
        self._closed = True
        for follower in self._followers:
            follower.lost = True
            follower.wake.set()
