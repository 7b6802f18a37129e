"""What `follow` promises, over every database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from storage import ANY, Event, Key, Put, Store
from storage.errors import Compacted, FutureRevision, Unavailable
from storage.watch import QUEUE_EVENTS_MAX


def put(name: str) -> Put:
    return Put(Key("pods", "default", name), ANY, b"", b"")


async def take(follower: AsyncIterator[Sequence[Event]], last: int) -> list[int]:
    """Revisions up to and including `last`."""
    seen: list[int] = []
    async with asyncio.timeout(20):
        async for batch in follower:
            seen += [event.revision for event in batch]
            if seen[-1] >= last:
                break
    return seen


async def test_every_event_once_in_order_from_any_revision_while_writers_go_on(store: Store) -> None:
    total = 2000

    async def write(writer: int) -> None:
        for turn in range(total // 20):
            await store.commit(put(f"w{writer}-{turn % 7}"))

    async def follow_later(after: int) -> tuple[int, list[int]]:
        if after:
            await take(store.follow(0), after)
        return after, await take(store.follow(after), total)

    followers = [asyncio.create_task(follow_later(after)) for after in (0, 0, 1, 333, 1000, 1999)]
    await asyncio.gather(*(write(writer) for writer in range(20)))
    for after, seen in await asyncio.gather(*followers):
        assert seen == list(range(after + 1, total + 1))


async def test_a_follower_of_the_log_sees_the_same_as_one_of_the_writer(store: Store) -> None:
    live = asyncio.create_task(anext(aiter(store.follow(0))))
    await asyncio.sleep(0)
    committed = await store.commit(put("a"), put("a"), put("b"))
    assert list(await live) == committed
    assert list(await anext(aiter(store.follow(0)))) == committed


async def test_the_future_is_refused_and_so_is_the_forgotten_past(store: Store) -> None:
    for _ in range(5):
        await store.commit(put("a"))
    with pytest.raises(FutureRevision):
        await anext(aiter(store.follow(6)))
    await store.compact(4)
    with pytest.raises(Compacted) as gone:
        await anext(aiter(store.follow(2)))
    assert gone.value.oldest == 4
    assert await take(store.follow(3), 5) == [4, 5]


async def test_a_slow_follower_blocks_no_writer_and_misses_nothing(store: Store) -> None:
    follower = aiter(store.follow(0))
    await store.commit(put("a"))
    assert [event.revision for event in await anext(follower)] == [1]
    total = QUEUE_EVENTS_MAX + 3000
    for start in range(1, total, 1000):
        await store.commit(*(put(f"p{n % 50}") for n in range(start, min(total, start + 1000))))
    assert await take(follower, total) == list(range(2, total + 1))


async def test_a_follower_that_is_slower_than_compaction_is_told(store: Store) -> None:
    follower = aiter(store.follow(0))
    await store.commit(put("a"))
    await anext(follower)
    total = QUEUE_EVENTS_MAX + 3000
    for start in range(1, total, 1000):
        await store.commit(*(put(f"p{n % 50}") for n in range(start, min(total, start + 1000))))
    await store.compact(total)
    with pytest.raises(Compacted):
        await take(follower, total)


async def test_closing_the_store_ends_followers(store: Store) -> None:
    waiting = asyncio.create_task(anext(aiter(store.follow(0))))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(Unavailable):
        await waiting
