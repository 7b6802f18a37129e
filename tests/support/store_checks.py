"""What must hold of any store at any time, and of one whose writer has died."""

from __future__ import annotations

from collections.abc import Iterable

from storage import Entry, Event, EventType, Key, Store

LIMIT = 100_000


async def check_store(store: Store, acknowledged: Iterable[tuple[int, Key]] = ()) -> int:
    """Replay the log: it has no holes, gives the objects that the store has, and all that was acknowledged. The newest
    revision.
    """
    newest = await store.revision()
    oldest = max(1, await store.compacted_revision())
    base = await _state(store, oldest) if newest else {}
    events = await store.events(oldest, limit=LIMIT) if newest else []
    assert [event.revision for event in events] == list(range(oldest + 1, newest + 1))
    replayed = replay(base, events)
    assert {key: entry.revision for key, entry in replayed.items()} == {
        key: entry.revision for key, entry in (await _state(store, None)).items()
    }
    wrote = {event.revision: event.key for event in events}
    for revision, key in acknowledged:
        assert revision <= newest, f"revision {revision} was acknowledged; the store ends at {newest}"
        if revision > oldest:
            assert wrote[revision] == key
    return newest


def replay(base: dict[Key, Entry], events: Iterable[Event]) -> dict[Key, Entry]:
    """The state after the events."""
    state = dict(base)
    for event in events:
        if event.type is EventType.DELETE:
            del state[event.key]
        else:
            state[event.key] = Entry(event.key, event.revision, event.create_revision, event.value)
    return state


async def _state(store: Store, revision: int | None) -> dict[Key, Entry]:
    entries: dict[Key, Entry] = {}
    for resource in {*await store.resources(), *RESOURCES}:
        for entry in (await store.list(resource, at_revision=revision)).entries:
            entries[entry.key] = entry
    return entries


RESOURCES = ("pods", "leases", "nodes")
"""What tests store: a resource whose objects are all gone now may have had some at an earlier revision."""
