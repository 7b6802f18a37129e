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
import threading
from collections import deque
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


class _Inbox:
    """What the loop hands to the thread, in order.

    Waking a thread costs a system call, and gives it the interpreter's lock that the loop has to win back. So the loop
    wakes it only for what it waits for: the first item when it is idle, the last of the crowd when it gathers. A waking
    may come late, for what the thread has taken already; it then finds nothing and waits again.
    """

    def __init__(self) -> None:
        self._items: deque[_Pending | _Chore | None] = deque()
        # How many items the thread waits for; 0 while it does not wait.
        self._wanted = 0
        self._wake = threading.Lock()
        self._wake.acquire()

    def put(self, item: _Pending | _Chore | None) -> None:
        """From the loop only. What is no commit wakes at once."""
        self._items.append(item)
        wanted = self._wanted
        if wanted and (len(self._items) >= wanted or not isinstance(item, tuple)):
            self._wanted = 0
            if self._wake.locked():
                self._wake.release()

    def wait(self, count: int, seconds: float = -1) -> None:
        """In the thread only: until there are `count` items, one came that is no commit, or the time is over."""
        self._wanted = count
        # Looked at after saying so: whatever comes from now on wakes.
        if len(self._items) < count:
            self._wake.acquire(timeout=seconds)
        self._wanted = 0

    def pop(self) -> _Pending | _Chore | None:
        """The next item. Raises IndexError if there is none."""
        return self._items.popleft()

    def pop_commit(self) -> _Pending | None:
        """The next item, if there is one and it is a commit."""
        if self._items and isinstance(self._items[0], tuple):
            return self._items.popleft()  # type: ignore[return-value]
        return None


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
        self._inbox = _Inbox()
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
        self._inbox.put((mutations, future))
        return await future

    async def chore(self, run: Callable[[Connection], T]) -> T:
        """Call `run` in the writer's thread between two groups; it must be short, for commits wait meanwhile."""
        if self._closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._inbox.put(_Chore(run, future))  # type: ignore[arg-type]
        return await future

    async def close(self) -> None:
        """Write what is queued, then stop. Idempotent."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        crowd = 1
        while True:
            self._inbox.wait(1)
            first = self._inbox.pop_commit()
            if first is not None:
                pending = self._gather(first, crowd)
                crowd = len(pending)
                self._write(pending)
                continue
            try:
                other = self._inbox.pop()
            except IndexError:
                continue  # It was woken for what it had taken already.
            if not isinstance(other, _Chore):
                break
            self._do(other)
        self._session.close()

    def _gather(self, first: _Pending, crowd: int) -> list[_Pending]:
        """A group beginning with `first`: what is there, after a moment for the last group's writers to be back."""
        if crowd > 1:
            self._inbox.wait(crowd - 1, GATHER_SECONDS)
        pending, count = [first], len(first[0])
        while count < GROUP_MUTATIONS_MAX and (item := self._inbox.pop_commit()) is not None:
            pending.append(item)
            count += len(item[0])
        return pending

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


def _succeed(future: asyncio.Future[object], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[object], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
