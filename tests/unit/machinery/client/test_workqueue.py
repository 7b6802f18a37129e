from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from machinery.client.workqueue import ShutDown, WorkQueue


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, Any]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self._count += 1
        handle = type("Handle", (), {"cancelled": False, "cancel": lambda self: setattr(self, "cancelled", True)})()
        heapq.heappush(self._calls, (self.now + delay, self._count, (handle, callback)))
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, (handle, callback) = heapq.heappop(self._calls)
            if not handle.cancelled:
                callback()
        self.now = end


def take(queue: WorkQueue) -> Any:
    """What `get` answers when something is queued, without a running loop waiting for it."""
    coroutine = queue.get()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("get waits although something is queued")


class QueueMachine(RuleBasedStateMachine):
    """The queue against a model: what was added and not yet handed out since."""

    keys = st.sampled_from(["a", "b", "c", "d"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue = WorkQueue(clock=self.clock)
        self.wanted: set[str] = set()
        self.working: set[str] = set()
        self.due: dict[str, float] = {}

    @rule(key=keys)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.wanted.add(key)

    @rule(key=keys, seconds=st.floats(0.001, 10))
    def add_after(self, key: str, seconds: float) -> None:
        self.queue.add_after(key, seconds)
        self.due[key] = min(self.due.get(key, 1e9), self.clock.now + seconds)

    @rule(seconds=st.floats(0.001, 5))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for key in [key for key, at in self.due.items() if at <= self.clock.now]:
            del self.due[key]
            self.wanted.add(key)

    @precondition(lambda self: self.wanted - self.working)
    @rule()
    def get(self) -> None:
        key = take(self.queue)
        assert key in self.wanted - self.working
        self.wanted.discard(key)
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(key)
        self.queue.done(key)

    @invariant()
    def every_wanted_key_that_is_not_in_work_is_queued_once(self) -> None:
        assert self.queue.depth == len(self.wanted - self.working)
        assert self.queue.in_work == len(self.working)
        assert self.queue.retrying == len(self.due)


QueueMachine.TestCase.settings = settings(max_examples=60, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def test_backoff_doubles_up_to_the_maximum_and_starts_over_after_forget() -> None:
    queue = WorkQueue(clock=FakeClock(), backoff_seconds_first=1, backoff_seconds_max=5)
    assert [queue.add_rate_limited("k") for _ in range(5)] == [1, 2, 4, 5, 5]
    queue.forget("k")
    assert queue.add_rate_limited("k") == 1


async def test_a_waiting_getter_gets_what_comes_and_a_cancelled_one_loses_nothing() -> None:
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"


async def test_shut_down_hands_out_what_is_queued_and_then_ends() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.shut_down()
    queue.add("b")
    assert await queue.get() == "a"
    with pytest.raises(ShutDown):
        await queue.get()
