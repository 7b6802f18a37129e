"""How an apiserver leaves: it serves on while a balancer may send it requests, unless it has failed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from machinery.component.process import Context, Fatal
from services.apiserver.bootstrap import Bootstrap
from services.apiserver.config import ApiServerConfig
from services.apiserver.service import _start_rest, serve
from tests.support.apiserver_core import running_core
from tests.support.apiserver_process import free_port
from tests.support.pki import Pki

DELAY_SECONDS = 60.0


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Context[ApiServerConfig], aiohttp.ClientSession]]:
    """The life of an apiserver's REST front, and its administrator."""
    pki, url = Pki(directory / "pki"), f"127.0.0.1:{free_port()}"
    admin = pki.client("admin", "system:masters")
    client_side = ssl.create_default_context(cafile=str(pki.ca_file))
    client_side.load_cert_chain(admin.cert_file, admin.key_file)
    config = ApiServerConfig(rest_address=url, serving=pki.server("apiserver"), shutdown_delay_seconds=DELAY_SECONDS)
    running: list[asyncio.Task[Any]] = []
    tasks = SimpleNamespace(create_task=lambda work, name: running.append(asyncio.create_task(work, name=name)))
    ctx = Context(config, cast(asyncio.TaskGroup, tasks))
    async with running_core(directory) as core:
        await _start_rest(ctx, core.core, cast(Bootstrap, SimpleNamespace(done=set())))
        connector = aiohttp.TCPConnector(ssl=client_side)
        async with aiohttp.ClientSession(f"https://{url}", connector=connector) as client:
            yield ctx, client
        await ctx.close()
        for task in running:
            task.cancel()


async def test_one_that_is_stopped_says_so_and_serves_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (ctx, client):
        ctx.stop()
        closing = asyncio.create_task(ctx.close())
        await asyncio.sleep(0)
        async with client.get("/readyz/shutdown") as answer:
            assert (answer.status, answer.headers["Connection"]) == (500, "close")
        async with client.get("/api/v1/namespaces/default") as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert not closing.done()
        closing.cancel()


async def test_one_that_has_failed_closes_at_once(tmp_path: Path) -> None:
    """It waited for the balancer, and all the time that it has to close what it has went by."""
    async with serving(tmp_path) as (ctx, client):
        async with client.get("/version") as answer:
            assert answer.status == 200
        async with asyncio.timeout(DELAY_SECONDS / 4):
            await ctx.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get("/version")


async def test_a_delay_that_leaves_no_time_to_close_is_refused(tmp_path: Path) -> None:
    serving = Pki(tmp_path / "pki").server("apiserver")
    state = f"sqlite:///{tmp_path / 'state.db'}"
    config = ApiServerConfig(serving=serving, storage_url=state, shutdown_delay_seconds=5.0)
    with pytest.raises(Fatal, match="shutdown_delay_seconds: 5 leaves nothing of drain_seconds"):
        await serve(Context(config, cast(asyncio.TaskGroup, None)))
    assert not (tmp_path / "state.db").exists()
