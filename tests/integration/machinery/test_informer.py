"""An informer follows the apiserver through breaks and lost history, and its handlers see every object's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from machinery.api import kinds, selectors
from machinery.client.fake import FakeApiServer
from machinery.client.informer import Informer, wait_synced


def config_map(name: str, value: str = "1", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d", "labels": labels}, "data": {"k": value}}


class Watched:
    """An informer and what it told."""

    def __init__(self, informer: Informer[Any]) -> None:
        self.informer = informer
        self.told: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        informer.add_handler(self._on_event)

    def _on_event(self, old: Any, new: Any) -> None:
        word = "add" if old is None else "delete" if new is None else "update"
        self.told.append((word, (new or old).metadata.name))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(server: FakeApiServer, **options: Any) -> AsyncIterator[Watched]:
    watched = Watched(Informer(await server.client(), kinds.CONFIG_MAP, **options))
    task = asyncio.create_task(watched.informer.run())
    try:
        await wait_synced(watched.informer, timeout=10)
        yield watched
    finally:
        task.cancel()
        await asyncio.wait((task,))


def put(server: FakeApiServer, name: str, value: str = "1", **labels: str) -> None:
    body = config_map(name, value, **labels)
    try:
        server.state.create(kinds.CONFIG_MAP, "d", body)
    except Exception:
        server.state.update(kinds.CONFIG_MAP, "d", name, body)
    server.notify()


def drop(server: FakeApiServer, name: str) -> None:
    server.state.delete(kinds.CONFIG_MAP, "d", name)
    server.notify()


async def test_it_begins_with_the_state_and_goes_on_with_changes(server: FakeApiServer) -> None:
    put(server, "a")
    async with watching(server) as watched:
        assert watched.told == [("add", "a")]
        put(server, "b")
        put(server, "a", "2")
        drop(server, "b")
        await watched.until(lambda: len(watched.told) == 4)
        assert watched.told[1:] == [("add", "b"), ("update", "a"), ("delete", "b")]
        assert watched.informer.lister.get("d", "a").data == {"k": "2"}
        assert watched.informer.lister.by_key("d/b") is None


async def test_a_restart_of_the_apiserver_repeats_nothing_and_misses_nothing(server: FakeApiServer) -> None:
    put(server, "a")
    async with watching(server) as watched:
        await server.stop()
        put(server, "b")
        drop(server, "a")
        await server.start()
        await watched.until(lambda: len(watched.told) == 3)
        assert watched.told == [("add", "a"), ("add", "b"), ("delete", "a")]
        assert server.calls.count("Watch") >= 2


async def test_lost_history_is_made_up_for_by_comparing_states(server: FakeApiServer) -> None:
    for name in ("same", "changed", "gone", "replaced"):
        put(server, name)
    async with watching(server) as watched:
        watched.told.clear()
        await server.stop()
        put(server, "changed", "2")
        drop(server, "gone")
        drop(server, "replaced")
        put(server, "replaced")
        put(server, "new")
        server.compact()
        await server.start()
        await watched.until(lambda: len(watched.told) == 5)
        assert sorted(watched.told) == [
            ("add", "new"), ("add", "replaced"), ("delete", "gone"), ("delete", "replaced"), ("update", "changed"),
        ]  # fmt: skip
        # The namesake's end comes before its successor.
        assert watched.told.index(("delete", "replaced")) < watched.told.index(("add", "replaced"))


async def test_selectors_and_indices(server: FakeApiServer) -> None:
    for name, tier in (("a", "web"), ("b", "web"), ("c", "db")):
        put(server, name, tier=tier)
    indexers = {"tier": lambda obj: [obj.metadata.labels["tier"]]}
    async with watching(server, label_selector="tier=web", indexers=indexers) as watched:
        lister = watched.informer.lister
        assert sorted(lister.keys()) == ["d/a", "d/b"]
        assert {obj.metadata.name for obj in lister.by_index("tier", "web")} == {"a", "b"}
        put(server, "a", tier="db")
        await watched.until(lambda: ("delete", "a") in watched.told)
        assert [obj.metadata.name for obj in lister.by_index("tier", "web")] == ["b"]
        assert lister.by_index("tier", "db") == []
        assert len(lister.list("d", selectors.parse_label_selector("tier in (web)"))) == 1
        assert lister.list("other") == []


async def test_one_object_that_does_not_fit_its_model_hides_no_other(server: FakeApiServer) -> None:
    put(server, "a")
    server.state.create(kinds.CONFIG_MAP, "d", {"metadata": {"name": "odd"}, "data": "no map"})
    async with watching(server) as watched:
        assert watched.told == [("add", "a")]


async def test_a_handler_that_breaks_stops_neither_the_copy_nor_the_others(server: FakeApiServer) -> None:
    informer: Informer[Any] = Informer(await server.client(), kinds.CONFIG_MAP)
    informer.add_handler(lambda old, new: 1 / 0)
    watched = Watched(informer)
    task = asyncio.create_task(informer.run())
    put(server, "a")
    await watched.until(lambda: watched.told == [("add", "a")])
    task.cancel()


async def test_waiting_for_an_unreachable_apiserver_names_what_is_missing() -> None:
    async with FakeApiServer() as server:
        informer: Informer[Any] = Informer(await server.client(), kinds.CONFIG_MAP)
        await server.stop()
        task = asyncio.create_task(informer.run())
        with pytest.raises(TimeoutError, match="configmaps"):
            await wait_synced(informer, timeout=0.3)
        task.cancel()
