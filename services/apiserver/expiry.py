"""Events end by themselves, an hour after their last write, so that they never fill the store."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from machinery.component import logs
from services.apiserver import codec
from services.apiserver.entries import Entry
from services.apiserver.watch_cache import WatchCache
from storage import errors as store_errors
from storage.store import Delete, Key

log = logs.get("expiry")

EVENTS = "events"
SWEEP_SECONDS = 10.0
SWEEP_MAX = 500
"""How many are removed in one go; they share a few commits, and writers get their turn in between."""


class Expiry:
    """Removes what has outlived its time.

    Invariant: `_due` holds, in order of time, every write of an event; one that was written again since is skipped when
    its turn comes, because its revision is another.
    """

    def __init__(self, cache: WatchCache, ttl_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._ttl = ttl_seconds
        self._clock = clock
        self._due: deque[tuple[float, str, str, int]] = deque()

    def start(self) -> None:
        """Take in what is there, and follow."""
        cache = self._cache.of(EVENTS)
        written = sorted(
            (_written_at(entry), entry.namespace, entry.name, entry.revision) for entry in cache.listed("")
        )
        self._due.extend((at + self._ttl, namespace, name, revision) for at, namespace, name, revision in written)
        cache.listeners.append(self._on_change)

    def _on_change(self, old: Entry | None, new: Entry | None) -> None:
        if new is not None:
            self._due.append((self._clock() + self._ttl, new.namespace, new.name, new.revision))

    async def run(self) -> None:
        """Sweep, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            looked_at = SWEEP_MAX
            while looked_at == SWEEP_MAX:
                looked_at = await self.sweep()

    async def sweep(self) -> int:
        """Remove what is due, at most SWEEP_MAX; how many were looked at."""
        now, looked_at = self._clock(), 0
        work = []
        while self._due and self._due[0][0] <= now and looked_at < SWEEP_MAX:
            _, namespace, name, revision = self._due.popleft()
            looked_at += 1
            entry = self._cache.of(EVENTS).get(namespace, name)
            if entry is not None and entry.revision == revision:
                work.append(self._remove(entry))
        await asyncio.gather(*work)
        return looked_at

    async def _remove(self, entry: Entry) -> None:
        row = self._cache.registry.by_storage(EVENTS)
        assert row is not None
        key = Key(EVENTS, entry.namespace, entry.name)
        try:
            await self._cache.commit([Delete(key, entry.revision, row.head, codec.tail_of(entry.value))], [None])
        except store_errors.PreconditionFailed:
            return
        except store_errors.StoreError as err:
            log.warning("an event could not be removed", error=str(err))
            self._due.append((self._clock() + self._ttl, entry.namespace, entry.name, entry.revision))


def _written_at(entry: Entry) -> float:
    event = codec.decode(entry.value)
    text = event.get("lastTimestamp") or event["metadata"].get("creationTimestamp")
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return 0.0
