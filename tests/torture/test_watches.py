"""2. Watches over many events: ordered, unique, atomic, reliable, resumable, bookmarkable; slow ones are told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from machinery.api import errors
from services.apiserver.request import ListOptions, WatchOptions
from services.apiserver.service import Core
from services.apiserver.watcher import PENDING_MAX
from storage import ABSENT, ANY, Delete, EventType, Key, Put
from tests.support.apiserver_core import CoreClient, running_core
from tests.support.torture import figure, times
from tests.support.witness import Until

EVENTS = times(1_000_000, 30_000)
COMMIT = 200
"""Mutations in one transaction: a reader must never see part of one."""
KEYS = 1000
HEAD = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"'


def tail(name: str, turn: int) -> bytes:
    label = "odd" if turn % 2 else "even"
    return b'","name":"%b","namespace":"n","uid":"u","labels":{"parity":"%b"}},"data":{"turn":"%d"}}' % (
        name.encode(), label.encode(), turn,
    )  # fmt: skip


def mutations(turn: int) -> list[Put | Delete]:
    """One transaction: every fifth deletes what the one before it wrote."""
    names = [f"c{(turn // 5 * COMMIT + n) % KEYS:04}" for n in range(COMMIT)]
    keys = [Key("configmaps", "n", name) for name in names]
    if turn % 5 == 4:
        return [Delete(key, ANY, HEAD, tail(key.name, turn)) for key in keys]
    return [Put(key, ABSENT if turn % 5 == 0 else ANY, HEAD, tail(key.name, turn)) for key in keys]


class Validator:
    """One watch that ends itself now and then and goes on from the last revision that it has seen."""

    def __init__(self, client: CoreClient, selector: str, *, resume_after: int) -> None:
        self.client = client
        self.selector = selector
        self.resume_after = resume_after
        self.revision = 0
        self.count = self.resumed = self.bookmarks = 0
        self.state: dict[str, int] = {}

    async def run(self, last: int) -> None:
        while self.revision < last:
            options = {"resource_version": str(self.revision), "allow_bookmarks": True, "timeout_seconds": 30}
            if self.selector:
                options["label_selector"] = self.selector
            stream = self.client.core.handlers.watch(
                self.client.request("watch", "configmaps", "n"), WatchOptions(**options)
            )
            self.resumed += 1
            taken = 0
            async for batch in stream:
                for event in batch:
                    self._take(event)
                    taken += 1
                self.revision = max(self.revision, stream.revision)
                if self.revision >= last or taken >= self.resume_after:
                    break
            await stream.aclose()

    def _take(self, event) -> None:
        if event.type == "BOOKMARK":
            assert event.revision >= self.revision
            self.bookmarks += 1
            return
        assert event.revision > self.revision, f"{event.revision} after {self.revision}"
        self.revision = event.revision
        self.count += 1
        name = event.entry.name
        if event.type == "ADDED":
            assert name not in self.state
            self.state[name] = event.revision
        elif event.type == "MODIFIED":
            assert name in self.state
            self.state[name] = event.revision
        else:
            del self.state[name]


async def not_behind(core: Core, *validators: Validator) -> None:
    """Wait for the slowest: a watch that falls too far behind is ended, which another test looks at."""
    until = Until()
    await until.reached(
        lambda: core.cache.revision - min(v.revision for v in validators) <= PENDING_MAX // 2, 60, "watches keep up"
    )


async def test_every_watch_shows_every_event_once_in_order(tmp_path: Path) -> None:
    async with running_core(tmp_path) as client:
        core = client.core
        store, first = core.cache.store, core.cache.revision
        last = first + EVENTS // COMMIT * COMMIT + 2
        validators = [
            Validator(client, selector, resume_after=after)
            for selector in ("", "parity=odd", "parity=even")
            for after in (700, 10**9)
        ]
        for validator in validators:
            validator.revision = first
        began = time.monotonic()
        torn = 0

        async def write() -> None:
            for turn in range(EVENTS // COMMIT):
                await core.cache.commit(mutations(turn), [None] * COMMIT)
                # Nobody is left behind for good: a slow watcher is another test.
                await not_behind(core, *validators)
            # What every selector sees: it comes or it goes.
            for turn in (1, 2):
                await core.cache.commit([Put(Key("configmaps", "n", "end"), ANY, HEAD, tail("end", turn))], [None])

        async def list_on() -> None:
            nonlocal torn
            while core.cache.revision < last:
                listed = await core.handlers.list(client.request("list", "configmaps", "n"), ListOptions())
                turns = {entry.name: entry.value for entry in listed.entries}
                torn += len(turns.keys() - {"end"}) % COMMIT
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(list_on())
            for validator in validators:
                group.create_task(validator.run(last))
        assert torn == 0, "a list showed part of a transaction"
        log = await store.events(last - COMMIT, limit=COMMIT)
        assert log[-1].revision == last
        final = {entry.name: entry.revision for entry in core.cache.of("configmaps").listed("n")}
        parity = {entry.name: entry.labels["parity"] for entry in core.cache.of("configmaps").listed("n")}
        for validator in validators:
            wanted = validator.selector.partition("=")[2]
            assert validator.state == {k: v for k, v in final.items() if not wanted or parity[k] == wanted}
        assert [v.count for v in validators[:2]] == [last - first] * 2
        seconds = time.monotonic() - began
        figure(
            2,
            f"{last - first} events to {len(validators)} watches ({sum(v.resumed for v in validators)} resumptions): "
            f"ordered, unique, complete, {(last - first) / seconds:.0f} events/s with all of them in one process",
        )


async def test_a_watcher_that_is_too_slow_is_told_and_others_are_not(tmp_path: Path) -> None:
    async with running_core(tmp_path) as client:
        core, first = client.core, client.core.cache.revision
        options = WatchOptions(resource_version=str(first))
        slow = core.handlers.watch(client.request("watch", "configmaps", "n"), options)
        quick = Validator(client, "", resume_after=10**9)
        quick.revision = first
        turns = PENDING_MAX // COMMIT + 2
        following = asyncio.create_task(quick.run(first + turns * COMMIT))
        for turn in range(turns):
            await core.cache.commit(mutations(turn), [None] * COMMIT)
            await asyncio.sleep(0)
            await not_behind(core, quick)
        await following
        assert quick.count == turns * COMMIT
        with pytest.raises(errors.Expired, match="too slow"):
            async for _ in slow:
                pass


async def test_a_watch_over_a_compacted_deletion_is_expired_and_never_silent(tmp_path: Path) -> None:
    async with running_core(tmp_path) as client:
        core, first = client.core, client.core.cache.revision
        for turn in range(100):
            await core.cache.commit(mutations(turn), [None] * COMMIT)
        deleted = [e for e in await core.cache.store.events(first, limit=20_000) if e.type is EventType.DELETE]
        await core.cache.store.compact(deleted[-1].revision)
        stream = core.handlers.watch(
            client.request("watch", "configmaps", "n"), WatchOptions(resource_version=str(deleted[0].revision - 1))
        )
        with pytest.raises(errors.Expired):
            await anext(aiter(stream))


async def test_a_watch_from_a_revision_that_has_not_happened_shows_only_what_comes_after_it(tmp_path: Path) -> None:
    async with running_core(tmp_path) as client:
        core, first = client.core, client.core.cache.revision
        ahead = first + COMMIT + 5
        stream = core.handlers.watch(
            client.request("watch", "configmaps", "n"), WatchOptions(resource_version=str(ahead))
        )
        assert stream.revision == ahead
        await core.cache.commit(mutations(0), [None] * COMMIT)
        await core.cache.commit(mutations(1), [None] * COMMIT)
        async with asyncio.timeout(10):
            batch = await anext(aiter(stream))
        assert [event.revision for event in batch] == list(range(ahead + 1, first + 2 * COMMIT + 1))
        await stream.aclose()
