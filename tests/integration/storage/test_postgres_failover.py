"""A primary is lost and its standby, at another address, is promoted: the stores go there, and nothing that was
acknowledged is missing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from storage import ANY, Key, Put, Store, open_store
from storage.errors import StoreError
from tests.support.postgres import find_binaries, run_pair
from tests.support.store_checks import check_store
from tests.support.witness import Until

WRITES = 100
"""Acknowledged before the primary is lost, and again after."""

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs"),
]


class Writing:
    """A writer that notes what was acknowledged, and tries again when told that the database is away."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.acknowledged: list[tuple[int, Key]] = []
        self.failed = 0

    async def run(self, until: Until) -> None:
        for turn in itertools.count():
            if until.ended:
                return
            key = Key("pods", "default", f"{self.name}-{turn}")
            try:
                [event] = await self.store.commit(Put(key, ANY, b"", b"x" * 200))
            except StoreError:
                self.failed += 1
                await asyncio.sleep(0.05)
            else:
                self.acknowledged.append((event.revision, key))


async def test_a_promoted_standby_takes_over_with_everything_that_was_acknowledged() -> None:
    with run_pair() as (primary, standby):
        with primary.connect() as connection:
            connection.execute("CREATE DATABASE cluster")
        hosts = f"host={primary.directory},{standby.directory}&port={primary.port},{standby.port}"
        url = f"postgresql://cutaway@/cluster?{hosts}&target_session_attrs=read-write"
        one, two = [await open_store(url, cluster_id="one", origin=name) for name in ("one", "two")]
        until, followed = Until(), list[int]()
        writers = [Writing(one, "one"), Writing(two, "two")]

        async def follow() -> None:
            async for events in two.follow(0):
                followed.extend(event.revision for event in events)

        def all_wrote(count: int) -> bool:
            return all(len(writer.acknowledged) >= count for writer in writers)

        following = asyncio.create_task(follow())
        tasks = [asyncio.create_task(writer.run(until)) for writer in writers]
        try:
            await until.reached(lambda: all_wrote(WRITES), 30, "both write")
            await asyncio.to_thread(primary.stop, "immediate")
            before = [len(writer.acknowledged) for writer in writers]
            await asyncio.to_thread(standby.promote)
            await until.reached(lambda: all_wrote(max(before) + WRITES), 60, "both write to the promoted one")
        finally:
            until.ended = True
            await asyncio.gather(*tasks)
        acknowledged = sorted(itertools.chain(*(writer.acknowledged for writer in writers)))
        newest = acknowledged[-1][0]
        await until.reached(lambda: bool(followed) and followed[-1] >= newest, 30, "the follower has seen it all")
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        assert await check_store(two, acknowledged) >= newest
        assert followed == list(range(1, followed[-1] + 1))
        assert len({revision for revision, _ in acknowledged}) == len(acknowledged)
        await one.close()
        await two.close()
