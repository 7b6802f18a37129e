"""The store over a SQL database: puts the parts together. See `store.py` for what each method promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from storage import compactor, reads
from storage.compactor import BatchSize, Retention, RetentionPolicy
from storage.database import Database
from storage.errors import StoreError, Unavailable
from storage.store import Entry, Event, Key, Mutation, Page
from storage.watch import Hub
from storage.writer import Writer

READ_THREADS = 4
COMPACT_INTERVAL_SECONDS = 30.0
"""How often the retention policy is looked at. Short against the minutes for which even leases are kept."""

T = TypeVar("T")


class SqlStore:
    """Implements `Store`. Made by `open_store`, in the loop that will use it.

    Threads: one writer (see `writer.py`), a few readers, each with a connection and a snapshot of its own; everything
    else is in the loop.
    """

    def __init__(
        self,
        database: Database,
        *,
        cluster_id: str,
        revision: int,
        origin: str,
        retention: RetentionPolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.cluster_id = cluster_id
        self.origin = origin
        self._database = database
        self._clock = clock
        self._retention = retention
        self._reader = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="storage-read")
        self._hub = Hub(revision, self._read_log)
        self._writer = Writer(database, origin=origin, clock=clock, on_commit=self._committed)
        self._compacting = asyncio.Lock()
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to apply the retention policy. The task belongs to the store and ends with `close`."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="storage-retention")

    # --- the contract -------------------------------------------------------------------------------------------------

    async def commit(self, *mutations: Mutation) -> list[Event]:
        return await self._writer.commit(mutations)

    async def get(self, key: Key, at_revision: int | None = None) -> Entry | None:
        return await self._run(lambda connection: reads.get(connection, key, at_revision))

    async def list(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        at_revision: int | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 0,
    ) -> Page:
        return await self._run(
            lambda connection: reads.list_page(connection, resource, namespace, at_revision, after, limit)
        )

    async def resources(self) -> Sequence[str]:
        return await self._run(reads.resources)

    async def events(self, after_revision: int, *, resource: str | None = None, limit: int = 1000) -> Sequence[Event]:
        return await self._run(lambda connection: reads.events(connection, after_revision, resource, limit))

    async def history(self, key: Key, *, limit: int = 100) -> Sequence[Event]:
        return await self._run(lambda connection: reads.history(connection, key, limit))

    async def follow(self, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        async for batch in self._hub.follow(after_revision):
            yield batch

    async def revision(self) -> int:
        return await self._run(reads.revision)

    async def compacted_revision(self, resource: str = "") -> int:
        return await self._run(lambda connection: reads.floor(connection, resource))

    async def compact(self, revision: int) -> int:
        return await self._compact("", revision)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._writer.close()
        # The last group's acknowledgement is a callback that the writer has already handed to the loop.
        await asyncio.sleep(0)
        self._hub.close()
        self._reader.shutdown(wait=True)
        self._database.close()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _run(self, read: Callable[[Connection], T]) -> T:
        if self._closed:
            raise Unavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, read)

    def _read(self, read: Callable[[Connection], T]) -> T:
        try:
            with self._database.readers.connect() as connection, connection.begin():
                return read(connection)
        except StoreError:
            raise
        except Exception as error:
            raise self._database.translate(error) or error from error

    async def _read_log(self, after_revision: int, limit: int) -> Sequence[Event]:
        return await self.events(after_revision, limit=limit)

    # --- following ----------------------------------------------------------------------------------------------------

    def _committed(self, events: Sequence[Event]) -> None:
        self._hub.publish(events)

    # --- compaction ---------------------------------------------------------------------------------------------------

    async def _compact(self, resource: str, revision: int) -> int:
        async with self._compacting:
            await self._aside(lambda connection: compactor.promise(connection, resource, revision))
            return await self._sweep(resource)

    async def _sweep(self, resource: str) -> int:
        removed, done, size = 0, False, BatchSize()
        while not done:
            rows = size.rows
            count, done, seconds = await self._aside(lambda connection, rows=rows: _timed(connection, resource, rows))  # type: ignore[misc]
            size.took(seconds)
            removed += count
        return removed

    async def _aside(self, run: Callable[[Connection], T]) -> T:
        """A short write that isn't a commit: between two groups where only one connection may write."""
        return await self._writer.chore(run)

    async def _keep(self) -> None:
        for resource in await self._run(compactor.unfinished):
            async with self._compacting:
                await self._sweep(resource)
        while True:
            for resource, retention in [*self._retention.resources.items(), ("", self._retention.default)]:
                await self._apply(resource, retention)
            await asyncio.sleep(COMPACT_INTERVAL_SECONDS)

    async def _apply(self, resource: str, retention: Retention) -> None:
        if retention == Retention():
            return
        try:
            revision = await self._run(lambda connection: compactor.due(connection, resource, retention, self._clock()))
            if revision:
                await self._compact(resource, revision)
        except StoreError:
            # A full or absent database is told to whoever commits; forgetting is tried again at the next interval.
            return


def _timed(connection: Connection, resource: str, rows: int) -> tuple[int, bool, float]:
    started = time.monotonic()
    removed, done = compactor.sweep(connection, resource, rows)
    return removed, done, time.monotonic() - started
