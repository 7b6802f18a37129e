"""A connection answers its requests one after the other, whatever comes with them and in how many pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web

from services.apiserver.rest.connection import ARRIVED_BYTES_MAX, Connection, make_server
from services.apiserver.rest.stored_json import StoredJson

READ_SECONDS_MAX = 10


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    """A server that says how many bytes a body had, and how it came."""

    async def answer(http: web.BaseRequest) -> StoredJson:
        if http.raw_path == "/refused":
            return StoredJson(http, b'"refused"')
        assert isinstance(http.protocol, Connection)
        body = http.protocol.arrived(http.content)
        way = "arrived" if body is not None else "read"
        if body is None:
            body = await http.read()
        return StoredJson(http, f'"{way} {len(body)} {http.raw_path}"'.encode())

    server = make_server(answer)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    await server.shutdown(1)


def post(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(READ_SECONDS_MAX):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        return await reader.readexactly(length)


async def test_requests_that_come_together_are_answered_in_order(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(post(f"/{number}", 3) + b"abc" for number in range(100)))
    for number in range(100):
        assert (await answer_of(reader)).endswith(f'3 /{number}"'.encode())
    writer.close()


async def test_a_body_in_pieces_is_waited_for(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post("/a", 6) + b"abc")
    await writer.drain()
    # The server has seen the first half once it has answered somebody who came after it.
    other_reader, other = await asyncio.open_connection("127.0.0.1", port)
    other.write(post("/b", 0))
    assert await answer_of(other_reader) == b'"read 0 /b"'
    writer.write(b"def" + post("/c", 2) + b"xy")
    assert await answer_of(reader) == b'"read 6 /a"'
    assert await answer_of(reader) == b'"arrived 2 /c"'
    writer.close()
    other.close()


async def test_a_large_body_is_read_and_a_small_one_taken(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    size = ARRIVED_BYTES_MAX * 20
    writer.write(post("/large", size) + b" " * size + post("/small", 10) + b" " * 10)
    assert await answer_of(reader) == f'"read {size} /large"'.encode()
    assert await answer_of(reader) == b'"arrived 10 /small"'
    writer.close()


async def test_a_body_that_nobody_wants_is_not_taken_for_the_next_request(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    size = ARRIVED_BYTES_MAX * 20
    writer.write(post("/refused", size))
    assert await answer_of(reader) == b'"refused"'
    writer.write(b"x" * size + post("/next", 1) + b"y")
    assert await answer_of(reader) == b'"arrived 1 /next"'
    writer.close()


async def test_what_is_no_http_is_told_so_and_ends_the_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post("/", 0))
    assert await answer_of(reader) == b'"read 0 /"'
    writer.write(b"\x00\x01\x02\r\n\r\n")
    async with asyncio.timeout(READ_SECONDS_MAX):
        rest = await reader.read()
    assert rest.startswith(b"HTTP/1.0 400")
    writer.close()
