"""The work queue of a controller: keys, each at most once, with retries.

Upstream's semantics (k8s.io/client-go/util/workqueue). A key is in at most one of three places:

    add ──> queued ──get──> processing ──done──> (gone)
              ^                 │ add meanwhile
              └──────done───────┘ (marked dirty: queued again when done)

Invariants: no key is processed twice at the same time; no add is lost; a key that is queued is not queued again. The
queue is bounded by the number of keys that exist, because it holds each once.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from machinery.component import metrics


class Clock(Protocol):
    """Time, and a call later. An event loop's clock unless a test has another."""

    def time(self) -> float:
        """Seconds, monotonic."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        """Call `callback` after `delay` seconds; the result has `cancel()`."""
        ...


class ShutDown(Exception):
    """The queue was shut down and is empty."""


class WorkQueue:
    """A queue of hashable keys."""

    def __init__(
        self,
        name: str = "",
        *,
        clock: Clock | None = None,
        backoff_seconds_first: float = 0.005,
        backoff_seconds_max: float = 1000.0,
    ) -> None:
        self._clock = clock
        self._first = backoff_seconds_first
        self._max = backoff_seconds_max
        self._queue: deque[Hashable] = deque()
        self._dirty: set[Hashable] = set()
        self._processing: dict[Hashable, float] = {}
        self._failures: dict[Hashable, int] = {}
        # Delayed keys: the heap may hold stale entries; `_due` says which one counts.
        self._heap: list[tuple[float, int, Hashable]] = []
        self._due: dict[Hashable, float] = {}
        self._sequence = 0
        self._timer: Any = None
        self._timer_at = 0.0
        self._getters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False
        self._added_at: dict[Hashable, float] = {}
        self._metrics = _Metrics(name, self) if name else None

    def _time(self) -> Clock:
        if self._clock is None:
            self._clock = asyncio.get_running_loop()
        return self._clock

    # --- adding -------------------------------------------------------------------------------------------------------

    def add(self, key: Hashable) -> None:
        """Have the key processed once more from now on."""
        if self._shut_down or key in self._dirty:
            return
        self._dirty.add(key)
        if self._metrics:
            self._metrics.adds.inc()
            self._added_at[key] = self._time().time()
        if key not in self._processing:
            self._enqueue(key)

    def _enqueue(self, key: Hashable) -> None:
        self._queue.append(key)
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def add_after(self, key: Hashable, seconds: float) -> None:
        """Add the key in `seconds`; if it already waits, the earlier moment counts."""
        if self._shut_down:
            return
        if seconds <= 0:
            self.add(key)
            return
        due = self._time().time() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        self._arm()

    def _arm(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # Superseded by an earlier moment, and that one is over.
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._time().call_later(max(0.0, due - self._time().time()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._time().time()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        self._arm()

    def add_rate_limited(self, key: Hashable) -> float:
        """Add the key after its back-off, which doubles with each call until `forget`. The back-off in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # Past 2**60 the product would only overflow; the maximum holds long before.
        seconds: float = min(self._max, self._first * 2.0 ** min(failures, 60))
        if self._metrics:
            self._metrics.retries.inc()
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Hashable) -> None:
        """The key succeeded: its next back-off starts from the first again."""
        self._failures.pop(key, None)

    def failures(self, key: Hashable) -> int:
        """How often the key was rate limited since it was last forgotten."""
        return self._failures.get(key, 0)

    # --- taking -------------------------------------------------------------------------------------------------------

    async def get(self) -> Any:
        """The next key; call `done` with it afterwards. Raises ShutDown when the queue is shut down and empty.

        A cancelled get takes no key.
        """
        while not self._queue:
            if self._shut_down:
                raise ShutDown
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                # The wake-up that this getter got must not be lost to the others.
                if getter.done() and not getter.cancelled() and self._queue:
                    self._wake_one()
                raise
        key = self._queue.popleft()
        now = self._time().time()
        self._processing[key] = now
        self._dirty.discard(key)
        if self._metrics:
            self._metrics.queued.observe(now - self._added_at.pop(key, now))
        return key

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def done(self, key: Hashable) -> None:
        """The key was processed, well or not; if it was added meanwhile, it is queued again."""
        started = self._processing.pop(key, None)
        if self._metrics and started is not None:
            self._metrics.worked.observe(self._time().time() - started)
        if key in self._dirty:
            self._enqueue(key)

    def shut_down(self) -> None:
        """Take no more keys; getters get what is queued, then ShutDown."""
        self._shut_down = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heap.clear()
        self._due.clear()
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)
        self._getters.clear()

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._queue)

    @property
    def in_work(self) -> int:
        """Keys that are being processed."""
        return len(self._processing)

    @property
    def retrying(self) -> int:
        """Keys that wait for their back-off or delay."""
        return len(self._due)

    def longest_running_seconds(self) -> float:
        """How long the oldest key in work has been worked on."""
        return self._time().time() - min(self._processing.values()) if self._processing else 0.0

    def unfinished_seconds(self) -> float:
        """Sum of the time that the keys in work have taken so far."""
        now = self._time().time() if self._processing else 0.0
        return sum(now - started for started in self._processing.values())


class _Metrics:
    """Upstream's metrics of work queues, labelled with the queue's name."""

    def __init__(self, name: str, queue: WorkQueue) -> None:
        labels = ("name",)
        self.adds = metrics.counter("workqueue_adds_total", "Adds handled.", labels).labels(name)
        self.retries = metrics.counter("workqueue_retries_total", "Retries handled.", labels).labels(name)
        self.queued = metrics.histogram(
            "workqueue_queue_duration_seconds", "Time a key waits for a worker.", labels
        ).labels(name)
        self.worked = metrics.histogram(
            "workqueue_work_duration_seconds", "Time a key's processing takes.", labels
        ).labels(name)
        for metric, doc, read in (
            ("workqueue_depth", "Keys that wait for a worker.", lambda: queue.depth),
            ("workqueue_unfinished_work_seconds", "Time spent on keys in work.", queue.unfinished_seconds),
            (
                "workqueue_longest_running_processor_seconds",
                "Age of the oldest key in work.",
                queue.longest_running_seconds,
            ),
        ):
            metrics.gauge(metric, doc, labels).labels(name).set_function(read)
