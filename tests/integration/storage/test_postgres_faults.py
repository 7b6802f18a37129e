"""Several stores on one Postgres, and what can happen to it: all see all, in order, and none waits for a dead one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from storage import ANY, Delete, EventType, Key, Put, Store, open_store, postgres
from storage.errors import KeyExists, ReadOnly, RevisionMismatch, Unavailable, WrongDatabase
from tests.support.postgres import PostgresServer, run_postgres
from tests.support.store_checks import check_store

pytestmark = pytest.mark.postgres


def put(name: str, expect: int = ANY) -> Put:
    return Put(Key("pods", "default", name), expect, b"", b"x" * 500)


@contextlib.asynccontextmanager
async def stores(url: str, count: int) -> AsyncIterator[list[Store]]:
    opened = await asyncio.gather(*(open_store(url, cluster_id="one", origin=f"store-{n}") for n in range(count)))
    try:
        yield list(opened)
    finally:
        await asyncio.gather(*(store.close() for store in opened))


async def collect(store: Store, last: int) -> list[int]:
    seen: list[int] = []
    async with asyncio.timeout(30):
        async for batch in store.follow(0):
            seen += [event.revision for event in batch]
            if seen[-1] >= last:
                break
    return seen


async def write(store: Store, name: str, count: int) -> None:
    for turn in range(count):
        await store.commit(put(f"{name}-{turn % 5}"))


async def test_stores_that_open_an_empty_database_at_once_share_it(postgres_server: PostgresServer) -> None:
    async with stores(postgres_server.url(), 3) as (one, two, three):
        await one.commit(put("a", 0))
        with pytest.raises(KeyExists):
            await two.commit(put("a", 0))
        await three.commit(put("a", 1))
        with pytest.raises(RevisionMismatch):
            await one.commit(put("a", 1))
        assert await two.revision() == 2


async def test_every_store_sees_all_commits_of_all_in_order_while_others_abort(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    async with stores(url, 3) as opened:
        followers = [asyncio.create_task(collect(store, 900)) for store in opened]
        aborting = asyncio.create_task(asyncio.to_thread(abort, url, 60))
        await asyncio.gather(*(write(store, f"w{n}-{m}", 75) for n, store in enumerate(opened) for m in range(4)))
        for seen in await asyncio.gather(*followers):
            assert seen == list(range(1, 901))
        await aborting
        assert await check_store(opened[0]) == 900


def abort(url: str, times: int) -> None:
    """Transactions that do all that a commit does, and are rolled back."""
    database = postgres.PostgresDatabase(make_url(url))
    with database.writers.connect() as connection:
        for _ in range(times):
            transaction = connection.begin()
            connection.exec_driver_sql("SELECT revision FROM counter FOR UPDATE")
            connection.exec_driver_sql("UPDATE counter SET revision = revision + 1")
            connection.exec_driver_sql(f"SELECT pg_notify('{postgres.CHANNEL}', '999999 aborted')")
            transaction.rollback()
    database.close()


async def test_what_a_list_of_anothers_commits_shows_can_be_followed_from_there(
    postgres_server: PostgresServer,
) -> None:
    async with stores(postgres_server.url(), 2) as (one, two):
        for revision in range(1, 101):
            await one.commit(put("a"))
            page = await two.list("pods")  # at once: the notice is still on its way
            assert page.revision == revision
            following = asyncio.create_task(anext(aiter(two.follow(page.revision))))
            if revision < 100:
                following.cancel()
        await one.commit(put("b"))
        async with asyncio.timeout(10):
            assert [event.revision for event in await following] == [101]


async def test_an_event_of_another_store_carries_its_origin_and_what_it_replaced(
    postgres_server: PostgresServer,
) -> None:
    async with stores(postgres_server.url(), 2) as (one, two):
        follower = aiter(two.follow(0))
        committed = [
            *await one.commit(put("a")),
            *await one.commit(put("a")),
            *await one.commit(Delete(Key("pods", "default", "a"), ANY, b"", b"")),
        ]
        seen = []
        async with asyncio.timeout(10):
            while len(seen) < 3:
                seen += await anext(follower)
        assert seen == committed
        assert {event.origin for event in seen} == {"store-0"}
        assert seen[2].type is EventType.DELETE


async def test_a_follower_whose_listening_is_cut_again_and_again_misses_nothing(
    postgres_server: PostgresServer,
) -> None:
    async with stores(postgres_server.url(), 2) as (one, two):
        follower = asyncio.create_task(collect(two, 400))
        for _ in range(4):
            await write(one, "w", 50)
            with postgres_server.connect() as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            await write(one, "w", 50)
        assert await follower == list(range(1, 401))


async def test_a_frozen_writer_loses_its_lock_to_the_others(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_STALLED_SECONDS", 1)
    url = postgres_server.url()
    async with stores(url, 1) as (one,):
        database = postgres.PostgresDatabase(make_url(url))
        frozen = database.open_session()
        frozen.begin()
        with contextlib.suppress(Unavailable):  # it may give up waiting just before the server ends the frozen one
            await one.commit(put("a"))
        await one.commit(put("b"))
        # And the frozen one, woken, can't write any more, but can begin anew.
        with pytest.raises(postgres.psycopg.Error):
            frozen.heads([Key("pods", "default", "b")])
        frozen.rollback()
        assert frozen.begin().revision == await one.revision()
        frozen.rollback()
        frozen.close()
        database.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may crash; it flushes as a real one does."""
    with run_postgres() as server:
        yield server


async def test_a_server_that_crashes_and_comes_back_costs_nothing_acknowledged(own_server: PostgresServer) -> None:
    acknowledged: list[tuple[int, Key]] = []
    refused = 0
    stopping = asyncio.Event()
    written = asyncio.Semaphore(0)

    async def keep_writing(store: Store, name: str) -> None:
        nonlocal refused
        turn = 0
        while not stopping.is_set():
            turn += 1
            try:
                (event,) = await store.commit(put(f"{name}-{turn % 5}"))
                acknowledged.append((event.revision, event.key))
                written.release()
            except Unavailable:
                refused += 1
                await asyncio.sleep(0.01)  # as any client does that is told to try again

    async def hundred_more() -> None:
        for _ in range(100):
            await written.acquire()

    async with stores(own_server.url(), 2) as (one, two):
        tasks = [asyncio.create_task(keep_writing(store, f"w{n}")) for n, store in enumerate((one, two, one, two))]
        for _ in range(2):
            await hundred_more()
            await asyncio.to_thread(own_server.stop, "immediate")
            with pytest.raises(Unavailable):
                await one.get(Key("pods", "default", "w0-1"))
            await asyncio.to_thread(own_server.start)
            written = asyncio.Semaphore(0)
        await hundred_more()
        stopping.set()
        await asyncio.gather(*tasks)
        assert refused
        newest = await check_store(two, acknowledged)
        assert await collect(one, newest) == list(range(1, newest + 1))


async def test_a_read_only_database_serves_reads_and_recovers(postgres_server: PostgresServer) -> None:
    async with stores(postgres_server.url(), 1) as (store,):
        await store.commit(put("a"))
        with postgres_server.connect() as connection:
            _make_read_only(connection, True)
            try:
                with pytest.raises(ReadOnly):
                    await store.commit(put("b"))
                assert await store.get(Key("pods", "default", "a")) is not None
            finally:
                _make_read_only(connection, False)
        await store.commit(put("b"))


def _make_read_only(connection, on: bool) -> None:
    """As a fail-over to a standby does: sessions end, and new ones can't write."""
    connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
    connection.execute("SELECT pg_reload_conf()")
    connection.execute("SELECT pg_sleep(0.2)")


async def test_a_wrong_database_is_told(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(WrongDatabase, match='database "absent" does not exist'):
        await open_store(postgres_server.url_of("absent"))
    url = postgres_server.url()
    await (await open_store(url, cluster_id="mine")).close()
    with pytest.raises(WrongDatabase, match="belongs to cluster mine"):
        await open_store(url, cluster_id="yours")
    with pytest.raises(Unavailable, match="No such file"):
        await open_store(f"postgresql://cutaway@/x?host={tmp_path}")


async def test_another_programs_tables_are_left_alone(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    database = postgres.PostgresDatabase(make_url(url))
    with database.writers.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE counter (x int)")
    database.close()
    with pytest.raises(WrongDatabase, match="tables of another program: counter"):
        await open_store(url)
