"""How long requests may take: what `asyncio.timeout` does, for very many that nearly all end in time.

The limit is the same for all, so they run out in the order in which they began, and one timer for the first of them
serves all: a request costs an entry in a dict instead of a timer of its own in the loop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """`with deadlines.limit():` raises TimeoutError in the task that has been in there for `seconds`.

    Invariants: `_running` is in the order of the deadlines; there is a timer while it has an entry.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, task: asyncio.Task[object] | None = None) -> Deadline:
        """A context manager for the running task, to be used once. Who knows that task saves looking for it."""
        return Deadline(self, task)

    def begin(self, deadline: Deadline) -> None:
        """From now on it counts."""
        loop = asyncio.get_running_loop()
        deadline.when = loop.time() + self._seconds
        self._running[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(deadline.when, self._expire)

    def end(self, deadline: Deadline) -> None:
        """It counts no longer."""
        self._running.pop(deadline, None)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in list(self._running):
            if deadline.when > now:
                self._timer = loop.call_at(deadline.when, self._expire)
                return
            del self._running[deadline]
            deadline.expire()
        self._timer = None


class Deadline:
    """One task's. As with `asyncio.timeout`, only a cancellation of ours becomes a TimeoutError, and one from outside
    that comes at the same time counts more."""

    __slots__ = ("_all", "_cancelling", "_expired", "_task", "when")

    def __init__(self, deadlines: Deadlines, task: asyncio.Task[object] | None) -> None:
        self._all = deadlines
        self._expired = False
        self._task = task
        self._cancelling = 0
        # The loop's time at which it is over.
        self.when = 0.0

    def expire(self) -> None:
        """The time is over."""
        assert self._task is not None
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = self._task or asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._all.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if not self._expired:
            self._all.end(self)
            return
        assert self._task is not None
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
