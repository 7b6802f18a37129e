"""GET, LIST and WATCH hand out the stored bytes: nothing on their path decodes or encodes an object."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
import pytest

from services.apiserver import codec
from services.apiserver.watcher import WatchEvent, line
from tests.support.apiserver_core import CoreClient


def _config_map(name: str, parity: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"parity": parity}}, "data": {"k": "v"}}


async def test_no_object_is_decoded_on_get_list_and_watch(core: CoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(20):
        await core.create("configmaps", _config_map(f"c{index:02}", "even" if index % 2 == 0 else "odd"), "default")

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("an object was decoded or encoded on the read path")

    get = core.core.handlers.get
    for module, names in (
        (orjson, ("loads", "dumps")),
        (msgspec.json, ("decode", "encode")),
        (codec, ("decode", "encode_tail")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    raw = await get(core.request("get", "configmaps", "default", "c03"))
    everything = await core.list("configmaps", "default")
    selected = await core.list("configmaps", "default", label_selector="parity=odd")
    assert len(everything.items) == 20
    assert [entry.name for entry in selected.entries] == [f"c{index:02}" for index in range(1, 20, 2)]
    entries = core.core.cache.of("configmaps")
    # Not equal bytes: the same bytes.
    assert all(item is entry.value for item, entry in zip(everything.items, entries.listed("default"), strict=True))
    stored = entries.get("default", "c03")
    assert stored is not None
    assert raw is stored.value
    stream = core.watch("configmaps", "default", label_selector="parity=even")
    batch = await anext(stream)
    assert [event.entry.name for event in batch] == [f"c{index:02}" for index in range(0, 20, 2)]
    assert all(event.json is event.entry.value for event in batch)
    assert line(batch[0].type, batch[0].json).startswith(
        b'{"type":"ADDED","object":{"apiVersion":"v1","kind":"ConfigMap"'
    )
    await stream.aclose()


async def test_watchers_share_an_events_bytes(core: CoreClient) -> None:
    streams = [core.watch("configmaps", resource_version=str(core.core.cache.revision)) for _ in range(3)]
    await core.create("configmaps", _config_map("a", "odd"), "default")
    async with asyncio.timeout(5):
        batches = [await anext(stream) for stream in streams]
    assert batches[0] is batches[1] is batches[2]
    for stream in streams:
        await stream.aclose()
    assert core.core.cache.of("configmaps").watchers == 0
    assert core.core.cache.of("configmaps")._groups == {}


async def test_a_watcher_that_falls_too_far_behind_is_told_so(
    core: CoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from machinery.api import errors
    from services.apiserver import watcher

    monkeypatch.setattr(watcher, "PENDING_MAX", 3)
    slow = core.watch("configmaps", resource_version=str(core.core.cache.revision))
    for index in range(5):
        await core.create("configmaps", _config_map(f"c{index}", "odd"), "default")
    with pytest.raises(errors.Expired):
        await anext(slow)


async def test_a_watch_far_behind_gets_bounded_batches_each_with_its_revision(
    core: CoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.apiserver import watcher

    monkeypatch.setattr(watcher, "EVENTS_PER_BATCH", 4)
    stream = core.watch("configmaps", resource_version=str(core.core.cache.revision))
    for index in range(10):
        await core.create("configmaps", _config_map(f"c{index}", "odd"), "default")
    sizes = []
    while sum(sizes) < 10:
        batch = await anext(stream)
        sizes.append(len(batch))
        if sum(sizes) < 10:
            assert stream.revision == batch[-1].revision
    assert max(sizes) == 4
    assert stream.revision == core.core.cache.revision
    await stream.aclose()


async def test_a_watch_pushes_while_it_is_waited_for_and_the_rest_comes_in_order(core: CoreClient) -> None:
    stream = core.watch("configmaps", resource_version=str(core.core.cache.revision))
    seen: asyncio.Queue[str] = asyncio.Queue()
    taking = True

    def note(how: str, events: Sequence[WatchEvent]) -> None:
        for event in events:
            assert event.entry is not None
            seen.put_nowait(f"{how} {event.entry.name}")

    def send(events: Sequence[WatchEvent]) -> bool:
        if taking:
            note("pushed", events)
        return taking

    stream.push_to(send)
    # Nobody waits yet: what comes now is for the iteration.
    await core.create("configmaps", _config_map("a", "odd"), "default")

    async def iterate() -> None:
        async for batch in stream:
            note("iterated", batch)

    task = asyncio.create_task(iterate())
    async with asyncio.timeout(5):
        assert await seen.get() == "iterated a"
        for name, how in (("b", "pushed"), ("c", "iterated"), ("d", "pushed")):
            taking = how == "pushed"
            await core.create("configmaps", _config_map(name, "odd"), "default")
            assert await seen.get() == f"{how} {name}"
    assert stream.revision == core.core.cache.revision
    task.cancel()
    await stream.aclose()
