"""The store over a SQL database: puts the parts together. See `store.py` for what each method promises."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage import compactor, reads
from storage.compactor import BatchSize, Retention, RetentionPolicy
from storage.database import Database, LogTail
from storage.errors import FutureRevision, StoreError, Unavailable
from storage.store import Entry, Event, Key, Mutation, Page
from storage.watch import Hub
from storage.writer import Writer

READ_THREADS = 4
COMPACT_INTERVAL_SECONDS = 30.0
"""How often the retention policy is looked at. Short against the minutes for which even leases are kept."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


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
        self._tasks: list[asyncio.Task[None]] = []
        self._tail: LogTail | None = None

    def start(self) -> None:
        """Begin to apply the retention policy, and to hear of other processes. These tasks belong to the store and end
        with `close`.
        """
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._keep(), name="storage-retention"))
        self._tail = self._database.tail(self._hub, self._read_log, self.origin)
        if self._tail is not None:
            self._tasks.append(loop.create_task(self._tail.run(), name="storage-tail"))

    # --- the contract -------------------------------------------------------------------------------------------------

    async def commit(self, *mutations: Mutation) -> list[Event]:
        return await self._writer.commit(mutations) if mutations else []

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

    async def history(self, key: Key, *, limit: int = 100, at_revision: int = 0) -> Sequence[Event]:
        return await self._run(lambda connection: reads.history(connection, key, limit, at_revision))

    async def follow(self, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        if after_revision > self._hub.newest:
            # A reader sees a commit a moment before it is handed out here, so this may still be a revision that has
            # happened.
            newest = await self.revision()
            if after_revision > newest:
                raise FutureRevision(f"revision {after_revision} has not happened; the newest is {newest}", newest)
        async for batch in self._hub.follow(min(after_revision, self._hub.newest)):
            if batch[-1].revision <= after_revision:
                continue
            if batch[0].revision <= after_revision:
                batch = [event for event in batch if event.revision > after_revision]
            yield batch

    async def revision(self) -> int:
        return await self._run(reads.revision)

    @property
    def shared(self) -> bool:
        return self._tail is not None

    async def newest(self) -> int:
        if self._closed:
            raise Unavailable("the store is closed")
        if self._tail is None:
            # Nobody else writes. What was acknowledged has been handed out here.
            return self._hub.newest
        try:
            return await self._tail.newest()
        except Exception as error:
            raise self._database.translate(error) or error from error

    async def compacted_revision(self, resource: str = "") -> int:
        return await self._run(lambda connection: reads.floor(connection, resource))

    async def compact(self, revision: int) -> int:
        return await self._compact("", revision)

    async def erase(self, resource: str) -> int:
        await self._aside(self._database.begin_erasing)
        try:
            return await self._compact(resource, await self.revision())
        finally:
            await self._aside(self._database.end_erasing)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._writer.close()
        # The last group's acknowledgement is a callback that the writer has already handed to the loop.
        await asyncio.sleep(0)
        self._hub.close()
        # A read may hang on a database that does not answer; the loop must not hang with it.
        await asyncio.to_thread(self._reader.shutdown)
        self._database.close()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _run(self, read: Callable[[Connection], T]) -> T:
        if self._closed:
            raise Unavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, read)

    def _read(self, read: Callable[[Connection], T]) -> T:
        try:
            return self._read_once(read)
        except DBAPIError as error:
            failure = self._database.translate(error) or error
            if not error.connection_invalidated:
                raise failure from error
        # The server was restarted, or cut an idle connection. Reading twice does no harm, and all old connections are
        # gone now.
        try:
            return self._read_once(read)
        except DBAPIError as error:
            raise self._database.translate(error) or error from error

    def _read_once(self, read: Callable[[Connection], T]) -> T:
        with self._database.readers.connect() as connection, connection.begin():
            return read(connection)

    async def _read_log(self, after_revision: int, limit: int) -> Sequence[Event]:
        return await self.events(after_revision, limit=limit)

    # --- following ----------------------------------------------------------------------------------------------------

    def _committed(self, events: Sequence[Event]) -> None:
        if self._tail is not None:
            self._tail.committed(events)
        else:
            self._hub.publish(events)

    # --- compaction ---------------------------------------------------------------------------------------------------

    async def _compact(self, resource: str, revision: int) -> int:
        async with self._compacting:
            await self._aside(lambda connection: compactor.promise(connection, resource, revision))
            return await self._sweep(resource)

    async def _sweep(self, resource: str) -> int:
        removed, done, size = 0, False, BatchSize()
        while not done:
            count, done, seconds = await self._aside(partial(_timed_sweep, resource=resource, rows=size.rows))
            size.took(seconds)
            removed += count
        return removed

    async def _aside(self, run: Callable[[Connection], T]) -> T:
        """A short write that isn't a commit: between two groups where only one connection may write."""
        if self._database.one_writer:
            return await self._writer.chore(run)
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._write_aside, run)

    def _write_aside(self, run: Callable[[Connection], T]) -> T:
        try:
            with self._database.writers.connect() as connection:
                return run(connection)
        except DBAPIError as error:
            raise self._database.translate(error) or error from error

    async def apply_retention(self) -> None:
        """Compact what the retention policy no longer keeps. Also happens by itself, every COMPACT_INTERVAL_SECONDS."""
        for resource, retention in [*self._retention.resources.items(), ("", self._retention.default)]:
            if retention == Retention():
                continue
            now = self._clock()
            due = partial(compactor.due, resource=resource, retention=retention, now=now)
            if revision := await self._run(due):
                await self._compact(resource, revision)

    async def _keep(self) -> None:
        while True:
            try:
                for resource in await self._run(compactor.unfinished):
                    async with self._compacting:
                        await self._sweep(resource)
                await self.apply_retention()
            except StoreError as error:
                # Whoever commits hears of a full or absent database, too. The next interval tries again.
                _log.warning("compaction failed, will be tried again: %s", error)
            await asyncio.sleep(COMPACT_INTERVAL_SECONDS)


def _timed_sweep(connection: Connection, resource: str, rows: int) -> tuple[int, bool, float]:
    started = time.monotonic()
    removed, done = compactor.sweep(connection, resource, rows)
    return removed, done, time.monotonic() - started
