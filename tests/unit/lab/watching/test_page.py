"""The page is for who has the token, asks by its own name, and hears what was and what comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from lab.errors import LabError
from lab.watching.page import Page
from lab.watching.story import Step


def step(number: int) -> Step:
    return Step(number, 1.0, number, "kubectl", "", "admin", "pod/a", "default", "created", 0, number)


class Told:
    """Stands for the gatherer: two steps have been told, one comes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Step] = asyncio.Queue()
        self.deaf: dict[str, str] = {}

    @contextmanager
    def listen(self) -> Any:
        yield [step(1), step(2)], self.queue


@pytest_asyncio.fixture
async def served() -> AsyncIterator[SimpleNamespace]:
    told = Told()
    page = Page(told, "demo & co")  # type: ignore[arg-type]
    await page.start(0)
    base = page.url.partition("?")[0]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield SimpleNamespace(told=told, page=page, base=base, session=session)
    await page.stop()


async def test_without_the_token_nothing_is_shown(served: SimpleNamespace) -> None:
    for path in ("", "steps", "?token=wrong"):
        async with served.session.get(served.base + path) as answer:
            assert answer.status == 403
            assert "cutaway watch" in await answer.text()


async def test_another_name_for_this_address_is_refused(served: SimpleNamespace) -> None:
    async with served.session.get(served.page.url, headers={"Host": "evil.example"}) as answer:
        assert answer.status == 403


async def test_the_token_becomes_a_cookie_and_the_page_runs_its_own_script_only(served: SimpleNamespace) -> None:
    async with served.session.get(served.page.url) as answer:
        assert answer.status == 200
        assert str(answer.url) == served.base
        text, policy = await answer.text(), answer.headers["Content-Security-Policy"]
    assert "demo &amp; co at work" in text
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in text
    assert "default-src 'none'" in policy


async def test_the_stream_begins_with_the_past_and_goes_on(served: SimpleNamespace) -> None:
    async with served.session.get(served.page.url):
        pass
    async with served.session.get(served.base + "steps", headers={"Last-Event-ID": "1"}) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        served.told.queue.put_nowait(step(3))
        seen = []
        async for line in answer.content:
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
            if len(seen) == 2:
                break
    assert [each["number"] for each in seen] == [2, 3]
    assert seen[0]["subject"] == "pod/a"


async def test_a_port_that_is_taken_is_told(served: SimpleNamespace) -> None:
    port = int(served.base.rpartition(":")[2].strip("/"))
    with pytest.raises(LabError, match="is taken"):
        await Page(served.told, "x").start(port)
