"""What is kept in step: at once, when woken, after failures, in time."""

from __future__ import annotations

import asyncio

import pytest

from machinery.api.errors import Conflict
from services.apiserver import reconcile
from services.apiserver.reconcile import Reconciler


class Work:
    """Counts how often it was done; fails at first, if told."""

    def __init__(self, failures: int = 0) -> None:
        self.times = 0
        self.failures = failures
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        self.times += 1
        self.done.set()
        if self.times <= self.failures:
            raise Conflict("not now")

    async def again(self, times: int) -> None:
        async with asyncio.timeout(10):
            while self.times < times:
                self.done.clear()
                await self.done.wait()


async def test_it_is_done_at_once_and_when_woken_and_not_without() -> None:
    work = Work()
    reconciler = Reconciler("things", work)
    running = asyncio.ensure_future(reconciler.run())
    await work.again(1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.times == 1
    reconciler.wake("what a listener", "is told")
    await work.again(2)
    running.cancel()


async def test_a_change_while_it_is_done_is_looked_at_once_more() -> None:
    reconciler: Reconciler
    work = Work()

    async def busy() -> None:
        await work()
        if work.times == 1:
            reconciler.wake()

    reconciler = Reconciler("things", busy)
    running = asyncio.ensure_future(reconciler.run())
    await work.again(2)
    running.cancel()


async def test_it_is_repeated_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "RETRY_SECONDS", 0)
    work = Work(failures=2)
    reconciler = Reconciler("things", work)
    running = asyncio.ensure_future(reconciler.run())
    await work.again(2)
    assert not reconciler.done_once
    await work.again(3)
    await asyncio.sleep(0)
    assert reconciler.done_once
    running.cancel()


async def test_it_is_done_every_so_often() -> None:
    work = Work()
    running = asyncio.ensure_future(Reconciler("things", work, every_seconds=0.001).run())
    await work.again(3)
    running.cancel()
