"""What `get`, `list`, `events`, `history` and `compact` promise, over every database."""

from __future__ import annotations

import pytest

from storage import ANY, EXISTS, Delete, EventType, Key, Put, Retention, RetentionPolicy, Store, open_store
from storage.errors import Compacted, FutureRevision

A, B, C = (Key("pods", "default", name) for name in "abc")


def put(key: Key, epoch: int = 0) -> Put:
    return Put(key, ANY, b"", b" " + key.name.encode(), epoch)


def delete(key: Key) -> Delete:
    return Delete(key, EXISTS, b"", b" " + key.name.encode())


async def fill(store: Store) -> None:
    """1: a, 2: b, 3: a, 4: b is deleted, 5: b is created again, 6: another resource, 7: a is deleted."""
    for mutation in (put(A), put(B), put(A), delete(B), put(B, 9), put(Key("nodes", "", "n")), delete(A)):
        await store.commit(mutation)


async def state(store: Store, revision: int | None) -> dict[str, int]:
    page = await store.list("pods", at_revision=revision)
    return {entry.key.name: entry.revision for entry in page.entries}


STATES = [{}, {"a": 1}, {"a": 1, "b": 2}, {"a": 3, "b": 2}, {"a": 3}, {"a": 3, "b": 5}, {"a": 3, "b": 5}, {"b": 5}]


async def test_the_state_at_every_past_revision(store: Store) -> None:
    await fill(store)
    for revision, expected in enumerate(STATES):
        assert await state(store, revision) == expected
        for key in (A, B, C):
            entry = await store.get(key, revision)
            assert (entry.revision if entry else None) == expected.get(key.name)
    assert await state(store, None) == STATES[-1]
    entry = await store.get(B)
    assert entry is not None
    assert (entry.revision, entry.create_revision, entry.epoch, entry.value) == (5, 5, 9, b"5 b")


async def test_a_future_revision_is_refused(store: Store) -> None:
    await fill(store)
    for call in (store.get(A, 8), store.list("pods", at_revision=8), store.events(8), store.compact(8)):
        with pytest.raises(FutureRevision) as refused:
            await call
        assert refused.value.newest == 7


async def test_events_come_in_order_with_what_they_replaced(store: Store) -> None:
    await fill(store)
    events = await store.events(0)
    assert [event.revision for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.previous for event in events] == [None, None, b"1 a", b"2 b", None, None, b"3 a"]
    assert [event.create_revision for event in events] == [1, 2, 1, 2, 5, 6, 1]
    assert [event.revision for event in await store.events(2, limit=2)] == [3, 4]
    assert [event.revision for event in await store.events(0, resource="nodes")] == [6]
    assert list(await store.events(7)) == []


async def test_history_of_a_key_is_newest_first_across_its_deletion(store: Store) -> None:
    await fill(store)
    history = await store.history(B)
    assert [(event.revision, event.type) for event in history] == [
        (5, EventType.PUT),
        (4, EventType.DELETE),
        (2, EventType.PUT),
    ]
    assert [event.previous for event in history] == [None, b"2 b", None]
    assert [event.revision for event in await store.history(A, limit=2)] == [7, 3]
    assert list(await store.history(C)) == []


async def test_resources_are_those_with_objects(store: Store) -> None:
    assert list(await store.resources()) == []
    await fill(store)
    await store.commit(put(Key("services", "default", "s")))
    await store.commit(delete(Key("services", "default", "s")))
    assert list(await store.resources()) == ["nodes", "pods"]


@pytest.mark.parametrize("past", [False, True])
async def test_a_list_in_pages_is_the_list(store: Store, past: bool) -> None:
    names = ["a", "a-b", "a.b", "ab", "b", "é", "z"]
    for namespace in ("x", "y"):
        for name in names:
            await store.commit(put(Key("pods", namespace, name)))
    revision = await store.revision()
    if past:
        await store.commit(delete(Key("pods", "x", "ab")))
        await store.commit(put(Key("pods", "y", "c")))
    seen, after = [], None
    while True:
        page = await store.list("pods", at_revision=revision, after=after, limit=4)
        assert page.revision == revision
        seen += [(entry.key.namespace, entry.key.name) for entry in page.entries]
        assert page.remaining == 14 - len(seen)
        after = page.after
        if after is None:
            break
    assert seen == [(namespace, name) for namespace in ("x", "y") for name in sorted(names, key=str.encode)]
    only = await store.list("pods", "y", at_revision=revision, limit=3)
    assert [entry.key.namespace for entry in only.entries] == ["y"] * 3
    assert only.remaining == 4


async def test_compaction_forgets_before_its_revision_and_nothing_else(store: Store) -> None:
    await fill(store)
    assert await store.compact(4) == 2  # 1 and 2, replaced at 3 and 4
    assert await store.compacted_revision() == 4
    for revision in (4, 5, 6, 7):
        assert await state(store, revision) == STATES[revision]
    for call in (store.get(A, 3), store.list("pods", at_revision=3), store.events(2)):
        with pytest.raises(Compacted) as gone:
            await call
        assert gone.value.oldest == 4
    assert [event.revision for event in await store.events(3)] == [4, 5, 6, 7]
    assert (await store.events(3))[0].previous is None
    assert [event.revision for event in await store.history(B)] == [5, 4]
    assert await store.compact(7) == 2  # the deletion at 4, and 3, replaced at 7
    assert await state(store, 7) == STATES[7]
    assert await store.compact(2) == 0
    assert await store.compacted_revision() == 7


async def test_a_key_that_was_deleted_and_forgotten_can_come_back(store: Store) -> None:
    await store.commit(put(A))
    await store.commit(delete(A))
    await store.commit(put(B))
    assert await store.compact(3) == 2
    assert list(await store.history(A)) == []
    (event,) = await store.commit(put(A))
    assert (event.create_revision, event.previous) == (4, None)
    assert await state(store, 3) == {"b": 3}


async def test_compaction_in_many_batches_keeps_every_current_object(store: Store) -> None:
    for turn in range(3):
        await store.commit(*(put(Key("pods", "default", f"p{n}")) for n in range(500)))
        await store.commit(*(delete(Key("pods", "default", f"p{n}")) for n in range(0, 500, 2) if turn < 2))
    newest = await store.revision()
    before = await state(store, None)
    await store.compact(newest)
    assert await state(store, None) == before == await state(store, newest)
    assert len(await store.events(newest - 1)) == 1


async def test_a_resource_with_a_short_retention_leaves_the_others_history_alone(url: str) -> None:
    now = 1_000_000.0
    policy = RetentionPolicy(resources={"leases": Retention(seconds=300)})
    store = await open_store(url, retention=policy, clock=lambda: now)
    await store.commit(put(A))
    for _ in range(5):
        await store.commit(put(Key("leases", "", "node")))
        now += 100
    await store.commit(put(A))
    now += 100
    await store.apply_retention()
    assert await store.compacted_revision() == 0
    assert await store.compacted_revision("leases") == 4  # committed at +200, 400 seconds ago
    assert [event.revision for event in await store.events(0, resource="pods")] == [1, 7]
    with pytest.raises(Compacted):
        await store.events(2, resource="leases")
    with pytest.raises(Compacted):
        await store.events(2)
    assert [event.revision for event in await store.events(3)] == [4, 5, 6, 7]
    assert await state(store, 1) == {"a": 1}
    await store.close()


async def test_retention_by_number_of_events(url: str) -> None:
    store = await open_store(url, retention=RetentionPolicy(Retention(events=10)))
    for _ in range(50):
        await store.commit(put(A))
    await store.apply_retention()
    assert await store.compacted_revision() == 40
    assert len(await store.events(39)) == 11
    await store.close()
