"""Deadlines do what `asyncio.timeout` does."""

from __future__ import annotations

import asyncio

import pytest

from services.apiserver.rest.deadlines import Deadlines


async def test_who_takes_too_long_gets_a_timeout_and_goes_on() -> None:
    deadlines = Deadlines(0)
    with pytest.raises(TimeoutError), deadlines.limit():
        await asyncio.Event().wait()
    # The cancellation has been taken back.
    await asyncio.sleep(0)


async def test_one_timer_ends_all_that_are_due_and_only_those() -> None:
    deadlines = Deadlines(0)
    reached: list[str] = []

    async def work(name: str) -> None:
        try:
            with deadlines.limit():
                await asyncio.Event().wait()
        except TimeoutError:
            reached.append(name)

    async def quick() -> None:
        with deadlines.limit():
            reached.append("quick")

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(work(name))
        group.create_task(quick())
    assert sorted(reached) == ["a", "b", "quick"]
    patient = Deadlines(3600)
    with patient.limit():
        await asyncio.sleep(0)
    assert not patient._running


async def test_a_cancellation_from_outside_stays_one() -> None:
    deadlines = Deadlines(3600)

    async def work() -> None:
        with deadlines.limit():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not deadlines._running


async def test_a_cancellation_from_outside_counts_more_than_a_deadline() -> None:
    deadlines = Deadlines(0)

    async def work() -> None:
        with deadlines.limit():
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        # Whichever comes first, the task has been asked to end.
        await task
    assert not deadlines._running
