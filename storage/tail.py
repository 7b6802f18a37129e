"""What other processes commit to the same Postgres: heard by NOTIFY, read from the log, handed to the hub.

Notices only say that there is something to read. What is missing is known from revisions, which have no holes; so a
notice that was lost, or a time without a connection, is made good by reading from the last revision seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg

from storage.errors import Compacted, StoreError
from storage.store import Event
from storage.watch import READ_EVENTS_MAX, Hub, ReadLog

POLL_SECONDS = 5.0
"""How often the log is looked at without any notice, should a connection have died silently."""
OWN_SECONDS = 0.05
"""How long after a notice of our own commit its acknowledgement may be on its way before the log is read instead."""
_BACKOFF_SECONDS = (0.1, 2.0)

_ASK_SECONDS = 3.0
"""How long the database may take to say how far it is."""

Listen = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]
"""Opens a connection that has begun to listen."""

Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]
"""Opens a connection that commits each statement by itself."""


class Tail:
    """Keeps a hub up to date. `run` goes on until it is cancelled."""

    def __init__(self, listen: Listen, connect: Connect, hub: Hub, read: ReadLog, origin: str) -> None:
        self._connect = listen
        self._connect_asking = connect
        self._asking: psycopg.AsyncConnection[Any] | None = None
        self._one_asks = asyncio.Lock()
        self._hub = hub
        self._read = read
        self._origin = origin
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Listen and read."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(), name="storage-listen")
                group.create_task(self._catch_up(), name="storage-catch-up")
        finally:
            await self._drop_asking()

    async def newest(self) -> int:
        """See LogTail. Over a connection of its own, kept between calls: a question is one statement and one answer."""
        async with self._one_asks:
            if self._asking is not None:
                # What the server has closed since is told by the first use only.
                with contextlib.suppress(psycopg.OperationalError):
                    return await self._ask(self._asking)
                await self._drop_asking()
            self._asking = await self._connect_asking()
            return await self._ask(self._asking)

    async def _ask(self, connection: psycopg.AsyncConnection[Any]) -> int:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                cursor = await connection.execute("SELECT revision FROM counter", prepare=True)
                row = await cursor.fetchone()
        except BaseException as error:
            # Cancelled or late: what comes over it next would be the answer to this question.
            await self._drop_asking()
            if isinstance(error, TimeoutError):
                raise psycopg.OperationalError(f"no answer within {_ASK_SECONDS:g} s") from error
            raise
        assert row is not None
        return int(row[0])

    async def _drop_asking(self) -> None:
        connection, self._asking = self._asking, None
        if connection is not None:
            # Not closed politely: the other side may be gone, and this must not wait for it.
            connection.pgconn.finish()

    def committed(self, events: Sequence[Event]) -> None:
        """Our own commit: straight to the hub, unless others' commits come before it."""
        if not self._hub.publish(events):
            self._wake.set()

    async def _listen(self) -> None:
        backoff, backoff_max = _BACKOFF_SECONDS
        pause = backoff
        while True:
            try:
                async with await self._connect() as connection:
                    pause = backoff
                    self._wake.set()  # Whatever was committed while nobody listened.
                    async for notice in connection.notifies():
                        self._heard(notice.payload)
            except (psycopg.Error, OSError):
                # Told to whoever reads or writes; here there is only one thing to do.
                await asyncio.sleep(pause)
                pause = min(backoff_max, pause * 2)

    def _heard(self, payload: str) -> None:
        revision, _, origin = payload.partition(" ")
        if int(revision) <= self._hub.newest:
            return
        if origin == self._origin:
            # The acknowledgement brings these events. Only if it was lost with its connection do they have to be read.
            asyncio.get_running_loop().call_later(OWN_SECONDS, self._check, int(revision))
        else:
            self._wake.set()

    def _check(self, revision: int) -> None:
        if revision > self._hub.newest:
            self._wake.set()

    async def _catch_up(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                while events := await self._read(self._hub.newest, READ_EVENTS_MAX):
                    self._hub.publish(events)
            except Compacted as error:
                # So long without the database that the log has moved on: followers have to read the state again.
                self._hub.skip(error.oldest - 1)
                self._wake.set()
            except StoreError:
                await asyncio.sleep(_BACKOFF_SECONDS[0])
                self._wake.set()
