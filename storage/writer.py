"""Group commit: one thread that turns what is pending into one durable transaction.

    commit() --submit--> queue --take a group--> begin, read heads, judge each, save, commit --acknowledge--> futures,
    followers
                           ^                                                                        |
                           +------------------ what arrives meanwhile waits -----------------------+

A disk's flush costs about the same for one mutation as for hundreds, so the time that one group is on its way is when
the next one gathers. Order of what happens is order of the queue; a future is resolved only after its group is durable.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from storage.database import Database, WriteSession
from storage.errors import StoreError, Unavailable
from storage.judge import Group, Verdict, keys_of
from storage.store import Event, Mutation

GROUP_MUTATIONS_MAX = 512
"""A group this large takes a few milliseconds; a larger one would let the first wait for the last."""

GATHER_SECONDS = 0.001
"""How long a group waits for writers that were in the last one and will probably be back. A lone writer never waits."""

PENDING_MAX = 8192
"""Commits that may be queued. One more waits in `commit` until there is room, so that memory stays bounded."""

T = TypeVar("T")

_Pending = tuple[Sequence[Mutation], "asyncio.Future[list[Event]]"]


class _Chore:
    """Work that isn't a commit and needs the writing connection, between two groups."""

    def __init__(self, run: Callable[[Connection], object], future: asyncio.Future[object]) -> None:
        self.run = run
        self.future = future


class Writer:
    """The thread and its queue. `on_commit` is called in the loop with each group's events, before their commits
    return.
    """

    def __init__(
        self,
        database: Database,
        *,
        origin: str,
        clock: Callable[[], float],
        on_commit: Callable[[Sequence[Event]], None],
    ) -> None:
        self._database = database
        self._origin = origin
        self._clock = clock
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Pending | _Chore | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(PENDING_MAX)
        self._closed = False
        self._session = database.open_session()
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    async def commit(self, mutations: Sequence[Mutation]) -> list[Event]:
        """Queue the mutations and wait until they are durable. Cancelling waits no longer, but takes nothing back."""
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise Unavailable("the store is closed")
        future: asyncio.Future[list[Event]] = self._loop.create_future()
        self._queue.put((mutations, future))
        return await future

    async def chore(self, run: Callable[[Connection], T]) -> T:
        """Call `run` in the writer's thread between two groups; it must be short, for commits wait meanwhile."""
        if self._closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Chore(run, future))  # type: ignore[arg-type]
        return await future

    async def close(self) -> None:
        """Write what is queued, then stop. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        crowd = 1
        while True:
            item = self._queue.get()
            if item is None:
                break
            if isinstance(item, _Chore):
                self._do(item)
                continue
            pending, other = self._gather(item, crowd)
            crowd = len(pending)
            self._write(pending)
            if isinstance(other, _Chore):
                self._do(other)
            elif other is _STOP:
                break
        self._session.close()

    def _gather(self, first: _Pending, crowd: int) -> tuple[list[_Pending], object]:
        """A group beginning with `first`, and what ended it early: a chore, _STOP or None."""
        pending, count = [first], len(first[0])
        deadline = time.monotonic() + GATHER_SECONDS
        while count < GROUP_MUTATIONS_MAX:
            try:
                if len(pending) >= crowd:
                    item = self._queue.get_nowait()
                else:
                    item = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return pending, _STOP
            if isinstance(item, _Chore):
                return pending, item
            pending.append(item)
            count += len(item[0])
        return pending, None

    def _write(self, pending: list[_Pending]) -> None:
        verdicts: list[Verdict]
        try:
            verdicts = self._transact([mutations for mutations, _ in pending])
        except Exception as error:
            self._session.recover(error)
            # One exception for each commit: each is raised in another task, and each raise adds to its traceback.
            verdicts = [self._failure(error) for _ in pending]
        self._loop.call_soon_threadsafe(self._acknowledge, pending, verdicts)

    def _transact(self, commits: list[Sequence[Mutation]]) -> list[Verdict]:
        session: WriteSession = self._session
        counter = session.begin()
        now = max(self._clock(), counter.time)
        group = Group(counter.revision, session.heads(keys_of(commits)), now, self._origin)
        verdicts = [group.judge(mutations) for mutations in commits]
        if group.log:
            session.save(group, now)
            session.commit()
        else:
            session.rollback()
        return verdicts

    def _failure(self, error: Exception) -> StoreError:
        failure = self._database.translate(error) or Unavailable(f"the writer failed: {error!r}")
        failure.__cause__ = error
        return failure

    def _do(self, chore: _Chore) -> None:
        try:
            result = chore.run(self._session.connection())
        except Exception as error:
            self._session.recover(error)
            failure = self._database.translate(error) or error
            failure.__cause__ = error if failure is not error else error.__cause__
            self._loop.call_soon_threadsafe(_fail, chore.future, failure)
        else:
            self._loop.call_soon_threadsafe(_succeed, chore.future, result)

    # --- in the loop --------------------------------------------------------------------------------------------------

    def _acknowledge(self, pending: list[_Pending], verdicts: list[Verdict]) -> None:
        events = [event for verdict in verdicts if not isinstance(verdict, StoreError) for event in verdict]
        if events:
            self._on_commit(events)
        for (_, future), verdict in zip(pending, verdicts, strict=True):
            self._room.release()
            if future.done():
                continue  # The caller was cancelled; what it queued has been written all the same.
            if isinstance(verdict, StoreError):
                future.set_exception(verdict)
            else:
                future.set_result(verdict)


_STOP = object()


def _succeed(future: asyncio.Future[object], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[object], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
