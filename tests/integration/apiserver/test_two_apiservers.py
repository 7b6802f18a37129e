"""Two apiservers on one Postgres: whatever one has acknowledged the other knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.postgres import PostgresServer, find_binaries, run_postgres
from tests.support.torture import figure, times

ROUNDS = times(1000, 30)
"""Of ten writes and reads each, in each of four tasks."""

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.torture,
    pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs"),
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def servers(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ApiServerProcess]]:
    url, home = postgres.url(), tmp_path_factory.mktemp("two")
    one = ApiServerProcess(_made(home / "one"), storage_url=url)
    two = ApiServerProcess(_made(home / "two"), one.pki, storage_url=url)
    started = [server.start() for server in (one, two)]
    yield started
    for server in started:
        if server.process is not None:
            server.stop()


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture
async def clients(servers: list[ApiServerProcess]) -> AsyncIterator[list[ApiClient]]:
    async with AsyncExitStack() as stack:
        opened = []
        for server in servers:
            client = await ApiClient.connect(server.grpc, files(server.admin), user_agent="two")
            stack.push_async_callback(client.close)
            opened.append(client)
        yield opened


def config_map(name: str, value: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}}


async def test_each_reads_what_the_other_has_acknowledged(clients: list[ApiClient]) -> None:
    async def work(task: int) -> int:
        checks = 0
        for turn in range(ROUNDS):
            here, there = (clients[0], clients[1]) if (turn + task) % 2 else (clients[1], clients[0])
            name = f"c-{task}-{turn}"
            made = await here.create(kinds.CONFIG_MAP, config_map(name, "0"), "default")
            assert (await there.get(kinds.CONFIG_MAP, name, "default")).data == {"k": "0"}
            listed = await there.list(kinds.CONFIG_MAP, "default", field_selector=f"metadata.name={name}")
            assert [item.metadata.resourceVersion for item in listed] == [made.metadata.resourceVersion]
            # A write based on what the other one acknowledged is no conflict, and no 404.
            made.data = {"k": "1"}
            await there.update(kinds.CONFIG_MAP, made, "default")
            assert (await here.get(kinds.CONFIG_MAP, name, "default")).data == {"k": "1"}
            await here.patch(kinds.CONFIG_MAP, name, "default", {"data": {"k": "2"}})
            assert (await there.get(kinds.CONFIG_MAP, name, "default")).data == {"k": "2"}
            await there.delete(kinds.CONFIG_MAP, name, "default")
            with pytest.raises(errors.NotFound):
                await here.get(kinds.CONFIG_MAP, name, "default")
            # The name is free again, at either.
            await here.create(kinds.CONFIG_MAP, config_map(name, "3"), "default")
            await there.delete(kinds.CONFIG_MAP, name, "default")
            checks += 10
        return checks

    started = time.monotonic()
    checks = sum(await asyncio.gather(*(work(task) for task in range(4))))
    seconds = time.monotonic() - started
    figure(4, f"{checks} writes and reads at two apiservers, none stale ({checks / seconds:.0f}/s)")


async def test_a_watch_from_a_revision_of_the_other_repeats_nothing(clients: list[ApiClient]) -> None:
    here, there = clients
    for turn in range(ROUNDS):
        made = await here.create(kinds.CONFIG_MAP, config_map(f"w-{turn}", "0"), "default")
        revision = int(made.metadata.resourceVersion)
        watch = there.watch(kinds.CONFIG_MAP, "default", after_revision=revision)
        later = await here.create(kinds.CONFIG_MAP, config_map(f"x-{turn}", "0"), "default")
        async with asyncio.timeout(10):
            async for batch in watch:
                if batch.events:
                    break
        seen = [int(obj.metadata.resourceVersion) for _, obj in batch.events]
        assert seen == [int(later.metadata.resourceVersion)]
        await watch.aclose()


async def test_writers_at_both_who_change_one_object_lose_nothing(clients: list[ApiClient]) -> None:
    await clients[0].create(kinds.CONFIG_MAP, config_map("shared", "0"), "default")

    async def add(client: ApiClient, task: int) -> None:
        for turn in range(ROUNDS // 2):
            await client.patch(kinds.CONFIG_MAP, "shared", "default", {"data": {f"t{task}-{turn}": "1"}})

    await asyncio.gather(*(add(client, 2 * n + m) for n, client in enumerate(clients) for m in range(2)))
    found = (await clients[1].get(kinds.CONFIG_MAP, "shared", "default")).data
    assert len(found) == 4 * (ROUNDS // 2) + 1
