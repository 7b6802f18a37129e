"""Connections that are only held, or not read from, cost a bounded amount and nobody else's service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from services.apiserver.rest import connection
from services.apiserver.rest.connection import Connection, Peers, make_server

LARGE = b"x" * 20_000_000
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(peers: Peers | None = None, **bounds: int) -> AsyncIterator[tuple[Any, asyncio.Event]]:
    """(a function that connects, an event that lets the path /wait answer) of a server with small bounds."""
    go = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/wait":
            await go.wait()
        assert isinstance(request.protocol, Connection)
        response: web.StreamResponse
        if request.path == "/socket":
            response = web.WebSocketResponse()
            await response.prepare(request)
            await response.close(message=b"fine")
        else:
            response = web.Response(body=LARGE if request.path == "/large" else b"fine")
        request.protocol.ends(response)
        return response

    http = make_server(answer, peers or Peers(**bounds))
    server = await asyncio.get_running_loop().create_server(http, "127.0.0.1", 0)
    opened: list[asyncio.StreamWriter] = []

    async def connect(send: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1], limit=1000)
        opened.append(writer)
        writer.write(send)
        return reader, writer

    try:
        yield connect, go
    finally:
        for writer in opened:
            writer.transport.abort()
        server.close()
        await http.shutdown(1)


async def answered(streams: Streams) -> bytes:
    reader, _ = streams
    async with asyncio.timeout(5):
        return await reader.readuntil(b"fine")


async def ended(streams: Streams) -> bool:
    """Whether the server closes the connection (at once, or not within half a second)."""
    try:
        async with asyncio.timeout(0.5):
            return await streams[0].read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_who_waits_without_a_request_makes_room() -> None:
    async with serving(waiting_max=5, just_come_seconds=0) as (connect, go):
        busy = await connect(REQUEST.replace(b"/", b"/wait", 1))
        served = await connect(REQUEST)
        assert await answered(served)
        held = []
        for _ in range(12):
            held.append(await connect())
            assert await answered(await connect(REQUEST))
        assert [await ended(one) for one in held[:6]] == [True] * 6
        # One that has made requests goes only after all that have not; one that is being served not at all.
        go.set()
        assert await answered(busy)


async def test_who_has_just_come_can_ask_though_others_hold_all_there_is() -> None:
    """Those with a request behind them were kept, and a newcomer closed before it had said anything."""
    async with serving(waiting_max=5, just_come_seconds=60) as (connect, _):
        for _ in range(5):
            assert await answered(await connect(REQUEST))
        newcomer = await connect()
        for _ in range(4):
            assert await answered(await connect(REQUEST))
        newcomer[1].write(REQUEST)
        assert await answered(newcomer)


async def test_a_head_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS_MAX", 0.1)
    async with serving() as (connect, _):
        assert await ended(await connect())
        assert await ended(await connect(b"GET / HTTP/1.1\r\nHost:"))
        whole = await connect(REQUEST)
        assert await answered(whole)
        assert not await ended(whole)


async def test_answers_that_nobody_reads_are_dropped_oldest_first() -> None:
    async with serving(unsent_bytes_max=50_000_000) as (connect, _):
        slow = [await connect(REQUEST.replace(b"/", b"/large", 1)) for _ in range(5)]
        reader, _ = await connect(REQUEST.replace(b"/", b"/large", 1))
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"20000000" in head
            assert len(await reader.readexactly(len(LARGE))) == len(LARGE)
        cut = 0
        for one, _ in slow:
            try:
                async with asyncio.timeout(10):
                    await one.readuntil(b"\r\n\r\n")
                    await one.readexactly(len(LARGE))
            except (asyncio.IncompleteReadError, ConnectionError):
                cut += 1
        assert 2 <= cut < 5


async def test_who_goes_while_it_is_served_is_not_counted_any_more() -> None:
    peers = Peers()
    async with serving(peers) as (connect, go):
        _, gone = await connect(REQUEST.replace(b"/", b"/wait", 1))
        served = await connect(REQUEST)
        gone.transport.abort()
        for step in range(4):
            if step == 2:  # By now it was seen to have gone.
                go.set()
            served[1].write(REQUEST)
            assert await answered(served)
        assert len(peers.waiting) == 1


async def test_a_web_socket_ends_without_a_word_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    upgrade = (
        b"GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with serving() as (connect, _):
        reader, writer = await connect(upgrade)
        assert await answered((reader, writer))
        writer.write(b"\x88\x82\0\0\0\0\x03\xe8")  # Close, masked, code 1000.
        assert await reader.read() == b""
    assert not caplog.records
