"""What `commit` promises, over every database."""

from __future__ import annotations

import asyncio

import pytest

from storage import ABSENT, ANY, EXISTS, Delete, EventType, Guard, Key, Put, Store, open_store
from storage.errors import GuardFailed, KeyExists, KeyMissing, PreconditionFailed, RevisionMismatch, Unavailable

A, B = Key("pods", "default", "a"), Key("pods", "default", "b")
LEASE = Key("leases.coordination.k8s.io", "kube-system", "scheduler")


def put(key: Key, expect: int = ANY, **more) -> Put:
    return Put(key, expect, b'{"revision":"', b'"}', **more)


def delete(key: Key, expect: int = EXISTS, **more) -> Delete:
    return Delete(key, expect, b'{"revision":"', b'"}', **more)


async def test_each_mutation_gets_the_next_revision_and_carries_it_in_its_bytes(store: Store) -> None:
    (created,) = await store.commit(put(A, ABSENT))
    (updated,) = await store.commit(put(A, created.revision))
    (deleted,) = await store.commit(delete(A, updated.revision))
    assert [event.revision for event in (created, updated, deleted)] == [1, 2, 3]
    assert [event.value for event in (created, updated, deleted)] == [b'{"revision":"%d"}' % n for n in (1, 2, 3)]
    assert [event.create_revision for event in (created, updated, deleted)] == [1, 1, 1]
    assert [event.type for event in (created, updated, deleted)] == [EventType.PUT, EventType.PUT, EventType.DELETE]
    assert [event.previous for event in (created, updated, deleted)] == [None, created.value, updated.value]
    assert {event.origin for event in (created, updated, deleted)} == {"one"}
    assert created.time <= updated.time <= deleted.time


async def test_a_failed_condition_changes_nothing_and_takes_no_revision(store: Store) -> None:
    (event,) = await store.commit(put(A, ABSENT, epoch=4))
    with pytest.raises(KeyExists) as exists:
        await store.commit(put(A, ABSENT))
    with pytest.raises(RevisionMismatch) as mismatch:
        await store.commit(put(A, 7))
    with pytest.raises(KeyMissing):
        await store.commit(put(B, 1))
    with pytest.raises(KeyMissing):
        await store.commit(put(B, EXISTS))
    with pytest.raises(KeyMissing):
        await store.commit(delete(B, ANY))
    for error in (exists.value, mismatch.value):
        assert error.key == A
        assert error.present is not None
        assert (error.present.revision, error.present.value, error.present.epoch) == (1, event.value, 4)
    assert await store.revision() == 1


async def test_several_mutations_are_all_or_nothing_and_see_each_other(store: Store) -> None:
    events = await store.commit(put(A, ABSENT), put(A, 1), put(B, ABSENT))
    assert [event.revision for event in events] == [1, 2, 3]
    with pytest.raises(KeyExists):
        await store.commit(delete(A), put(B, ABSENT))
    assert await store.revision() == 3
    assert await store.get(A) is not None


async def test_a_guard_is_judged_by_the_epoch_of_its_key(store: Store) -> None:
    guard = (Guard(LEASE, 1),)
    with pytest.raises(GuardFailed):
        await store.commit(put(A, guards=guard))
    await store.commit(put(LEASE, epoch=1))
    await store.commit(put(A, guards=guard))
    await store.commit(put(LEASE, epoch=2))
    with pytest.raises(GuardFailed) as failed:
        await store.commit(put(A, guards=guard))
    assert failed.value.key == LEASE
    with pytest.raises(GuardFailed):
        await store.commit(delete(A, guards=guard))
    await store.commit(delete(LEASE))
    with pytest.raises(GuardFailed):
        await store.commit(put(A, guards=(Guard(LEASE, 2),)))


async def test_a_guard_can_mean_one_life_of_its_key(store: Store) -> None:
    [made] = await store.commit(put(LEASE, epoch=1))
    guard = (Guard(LEASE, 1, made.create_revision),)
    await store.commit(put(LEASE, epoch=1))
    await store.commit(put(A, guards=guard))
    await store.commit(delete(LEASE))
    await store.commit(put(LEASE, epoch=1))
    with pytest.raises(GuardFailed, match="created at"):
        await store.commit(put(A, guards=guard))
    await store.commit(put(A, guards=(Guard(LEASE, 1),)))


async def test_the_log_says_who_asked(store: Store) -> None:
    [put_event] = await store.commit(Put(A, ABSENT, b"", b"", author="jane"))
    [gone] = await store.commit(Delete(A, ANY, b"", b"", author="joe"))
    assert [event.author for event in (put_event, gone)] == ["jane", "joe"]
    assert [event.author for event in await store.history(A)] == ["joe", "jane"]
    assert [event.author for event in await store.events(0)] == ["jane", "joe"]


async def test_leadership_that_moves_in_the_same_group_fails_the_old_leader(store: Store) -> None:
    await store.commit(put(LEASE, epoch=1))
    results = await asyncio.gather(
        store.commit(put(A, guards=(Guard(LEASE, 1),))),
        store.commit(put(LEASE, epoch=2)),
        store.commit(put(A, guards=(Guard(LEASE, 1),))),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [list, list, GuardFailed]


async def test_one_failed_commit_does_not_fail_others_of_its_group(store: Store) -> None:
    keys = [Key("pods", "default", f"p{n % 20}") for n in range(100)]
    results = await asyncio.gather(*(store.commit(put(key, ABSENT)) for key in keys), return_exceptions=True)
    done = [result for result in results if isinstance(result, list)]
    assert len(done) == 20
    assert sorted(events[0].revision for events in done) == list(range(1, 21))
    assert all(isinstance(result, KeyExists) for result in results if not isinstance(result, list))


async def test_of_concurrent_updates_of_one_revision_exactly_one_wins(store: Store) -> None:
    (event,) = await store.commit(put(A))
    results = await asyncio.gather(*(store.commit(put(A, event.revision)) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 49


async def test_a_cancelled_commit_goes_on(store: Store) -> None:
    task = asyncio.create_task(store.commit(put(A)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.commit(put(B))
    assert await store.get(A) is not None


async def test_what_was_acknowledged_is_there_after_opening_again(url: str) -> None:
    store = await open_store(url)
    await asyncio.gather(*(store.commit(put(Key("pods", "default", f"p{n}"))) for n in range(300)))
    await store.close()
    again = await open_store(url)
    assert len((await again.list("pods")).entries) == 300
    assert await again.revision() == 300
    assert (await again.commit(put(A)))[0].revision == 301
    await again.close()


async def test_close_writes_what_is_queued_and_then_refuses(url: str) -> None:
    store = await open_store(url)
    commits = [asyncio.create_task(store.commit(put(Key("pods", "default", f"p{n}")))) for n in range(100)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert len(await asyncio.gather(*commits)) == 100
    with pytest.raises(Unavailable):
        await store.commit(put(A))
    with pytest.raises(Unavailable):
        await store.get(A)


async def test_values_are_any_bytes_of_any_size(store: Store) -> None:
    head, tail = bytes(range(256)), b"\0" * 3_000_000
    (event,) = await store.commit(Put(A, ABSENT, head, tail))
    entry = await store.get(A)
    assert entry is not None
    assert entry.value == head + b"1" + tail == event.value


async def test_time_of_events_never_falls_with_a_clock_that_does(url: str) -> None:
    now = 1_000_000.0
    store = await open_store(url, clock=lambda: now)
    (first,) = await store.commit(put(A))
    now -= 3600
    (second,) = await store.commit(put(A))
    await store.close()
    again = await open_store(url, clock=lambda: now)
    (third,) = await again.commit(put(A))
    await again.close()
    assert [first.time, second.time, third.time] == [1_000_000.0] * 3
