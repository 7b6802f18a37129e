"""4. Several apiservers on a Postgres that aborts, hangs, is cut off: no false success, no stall."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from storage import ANY, Key, Put, Store, open_store, postgres
from tests.support.apiserver_process import ApiServerProcess, free_port
from tests.support.postgres import PostgresServer, find_binaries, run_postgres
from tests.support.rest import Rest
from tests.support.store_checks import check_store
from tests.support.tcp_proxy import Mode, TcpProxy
from tests.support.torture import figure, percentile, times
from tests.support.witness import Journal, Until, WatchWitness, judge, witnesses, write

WRITES = times(30_000, 1500)
FAULTS = times(100, 8)
FAULT_SECONDS = 0.7

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with run_postgres({"listen_addresses": "127.0.0.1"}, port=free_port()) as running:
        yield running


def abort(url: str, ended: list[bool]) -> int:
    """Transactions that do all that a commit does, and are rolled back; how many."""
    database = postgres.PostgresDatabase(make_url(url))
    count = 0
    with database.writers.connect() as connection:
        while not ended:
            transaction = connection.begin()
            connection.exec_driver_sql("SELECT revision FROM counter FOR UPDATE")
            connection.exec_driver_sql("UPDATE counter SET revision = revision + 1")
            connection.exec_driver_sql(f"SELECT pg_notify('{postgres.CHANNEL}', '999999999 aborted')")
            transaction.rollback()
            count += 1
            time.sleep(random.uniform(0, 0.01))
    database.close()
    return count


async def test_three_stores_see_all_while_transactions_abort(server: PostgresServer) -> None:
    url = server.url()
    opened = await asyncio.gather(*(open_store(url, origin=f"s{n}") for n in range(3)))
    ended: list[bool] = []
    aborting = asyncio.create_task(asyncio.to_thread(abort, url, ended))
    lags: list[float] = []

    async def follow(store: Store) -> None:
        last = 0
        async for batch in store.follow(0):
            now = time.time()
            for event in batch:
                assert event.revision == last + 1, f"{event.revision} after {last}"
                last = event.revision
                if event.origin != store.origin:  # type: ignore[attr-defined]
                    lags.append(now - event.time)
            if last >= WRITES:
                return

    async def keep_writing(store: Store, number: int) -> None:
        for turn in range(WRITES // 12):
            await store.commit(Put(Key("pods", "default", f"w{number}-{turn % 5}"), ANY, b"", b"x" * 500))

    try:
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            for store in opened:
                group.create_task(follow(store))
            for number in range(12):
                group.create_task(keep_writing(opened[number % 3], number))
        ended.append(True)
        aborted = await aborting
        assert await check_store(opened[0]) == WRITES
    finally:
        ended.append(True)
        await asyncio.gather(*(store.close() for store in opened))
    figure(
        4,
        f"3 stores, {WRITES} writes, {aborted} aborted transactions between them: each store saw all in order; "
        f"another's commit is seen after {percentile(lags, 0.5):.3f} s, p99 {percentile(lags, 0.99):.3f} s",
    )


async def test_a_bad_connection_to_the_database_never_makes_a_false_success(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = make_url(server.url())
    journal, until = Journal(), Until()
    watched: list[WatchWitness] = []
    async with TcpProxy(("127.0.0.1", server.port)) as one, TcpProxy(("127.0.0.1", server.port)) as two:
        servers: list[ApiServerProcess] = []
        for name, proxy in (("one", one), ("two", two)):
            (tmp_path / name).mkdir()
            through = f"postgresql://cutaway@127.0.0.1:{proxy.port}/{url.database}"
            pki = servers[0].pki if servers else None
            servers.append(ApiServerProcess(tmp_path / name, pki, storage_url=through))
            await asyncio.to_thread(servers[-1].start)
        try:
            async with Rest(servers[0]) as first, Rest(servers[1]) as second, asyncio.TaskGroup() as group:
                for number, rest in enumerate((first, second) * 4):
                    group.create_task(write(rest, journal, number, until))
                for rest in (first, second):
                    mine = witnesses()[2:]
                    watched += mine
                    for witness in mine:
                        group.create_task(witness.run(rest, until))
                await until.reached(lambda: all(w.stretches for w in watched), 30, "every watch has begun")
                modes = [Mode.CUT, Mode.DEAF, Mode.FREEZE, Mode.DELAY]
                for turn in range(FAULTS):
                    proxy, mode = (one, two)[turn % 2], modes[turn // 2 % 4]
                    proxy.set(mode)
                    await asyncio.sleep(FAULT_SECONDS)
                    if mode is Mode.DEAF:
                        # Whatever was answered meanwhile is lost for good.
                        proxy.reset()
                    proxy.set(Mode.PASS)
                    before = len(journal.acknowledged)
                    await until.reached(
                        lambda before=before: len(journal.acknowledged) >= before + 20, 60, f"writes go on after {mode}"
                    )
                newest = max(revision for revision, _ in journal.acknowledged)
                await until.reached(
                    lambda: all(w.revision >= newest for w in watched if not w.selector), 60, "watches have seen it all"
                )
                until.ended = True
        finally:
            until.ended = True
            for running in servers:
                if running.process is not None:
                    # The proxies run in this loop: it must go on.
                    await asyncio.to_thread(running.stop)
    store = await open_store(url.render_as_string(hide_password=False))
    newest = await judge(store, journal, watched)
    await store.close()
    # A cut database is told as such (5xx); 404 and 409 are answers about what is there.
    assert set(journal.refused) <= {404, 409, 500, 503, 504}, journal.refused
    figure(
        4,
        f"{FAULTS} faults between two apiservers and the database: {len(journal.acknowledged)} acknowledged, none lost "
        f"of {newest} revisions; refused {journal.refused}; unknown {journal.unknown}; no watch has a gap",
    )
