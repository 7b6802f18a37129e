"""The hub and its followers, over a log that is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from storage import watch
from storage.errors import Compacted, Unavailable
from storage.store import Event, EventType, Key
from storage.watch import Hub


class Log:
    """A log to read from. `oldest` is the first event that is retained."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.oldest = 1
        self.reads = 0

    def append(self, count: int) -> list[Event]:
        first = len(self.events) + 1
        new = [Event(EventType.PUT, Key("pods", "", "a"), n, 1, b"") for n in range(first, first + count)]
        self.events += new
        return new

    async def read(self, after: int, limit: int) -> Sequence[Event]:
        self.reads += 1
        if after + 1 < self.oldest:
            raise Compacted("gone", self.oldest)
        return self.events[after : after + limit]


async def take(follower, count: int) -> list[int]:
    seen: list[int] = []
    while len(seen) < count:
        seen += [event.revision for event in await anext(follower)]
    return seen


async def test_a_follower_reads_up_to_what_is_announced_and_is_handed_the_rest() -> None:
    log = Log()
    log.append(5)
    hub = Hub(3, log.read)  # 4 and 5 are in the log and not announced yet
    follower = aiter(hub.follow(1))
    assert await take(follower, 2) == [2, 3]
    waiting = asyncio.create_task(take(follower, 3))
    await asyncio.sleep(0)
    assert hub.publish(log.events[3:5])
    assert hub.publish(log.append(1))
    assert await waiting == [4, 5, 6]
    assert log.reads == 1


def test_what_does_not_come_next_is_not_handed_out() -> None:
    log = Log()
    hub = Hub(0, log.read)
    events = log.append(6)
    assert not hub.publish(events[1:])
    assert hub.newest == 0
    assert hub.publish(events[:3])
    assert hub.publish(events[1:4])  # part of it is known already
    assert hub.publish(events[:2])  # all of it is
    assert hub.newest == 4


async def test_a_follower_that_falls_behind_reads_the_log_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUEUE_EVENTS_MAX", 4)
    log = Log()
    hub = Hub(0, log.read)
    follower = aiter(hub.follow(0))
    hub.publish(log.append(1))
    assert await take(follower, 1) == [1]
    for _ in range(10):
        hub.publish(log.append(2))
    assert await take(follower, 20) == list(range(2, 22))
    hub.publish(log.append(1))
    assert await take(follower, 1) == [22]


async def test_a_follower_that_falls_behind_compaction_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUEUE_EVENTS_MAX", 4)
    log = Log()
    hub = Hub(0, log.read)
    follower = aiter(hub.follow(0))
    hub.publish(log.append(1))
    await anext(follower)
    for _ in range(10):
        hub.publish(log.append(2))
    log.oldest = 15
    with pytest.raises(Compacted):
        await anext(follower)


async def test_followers_of_a_hub_that_skips_find_the_gap() -> None:
    log = Log()
    hub = Hub(0, log.read)
    waiting = asyncio.create_task(anext(aiter(hub.follow(0))))
    await asyncio.sleep(0)
    log.append(30)
    log.oldest = 20
    hub.skip(19)
    with pytest.raises(Compacted):
        await waiting


async def test_closing_ends_every_follower_that_waits() -> None:
    hub = Hub(0, Log().read)
    waiting = [asyncio.create_task(anext(aiter(hub.follow(0)))) for _ in range(3)]
    await asyncio.sleep(0)
    hub.close()
    for task in waiting:
        with pytest.raises(Unavailable):
            await task
