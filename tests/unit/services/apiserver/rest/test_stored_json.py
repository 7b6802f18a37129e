"""The short answer is a whole HTTP/1.1 answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web

from services.apiserver.rest.connection import make_server
from services.apiserver.rest.stored_json import StoredJson


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    """A server that answers everything with a million bytes or with two."""

    async def answer(http: web.BaseRequest) -> StoredJson:
        response = StoredJson(http, b"{}" if http.raw_path == "/small" else b"[" + b" " * 1_000_000 + b"]")
        response.audit_id = "id-1"
        return response

    server = make_server(answer)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    await server.shutdown(1)


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    return head, await reader.readexactly(length)


async def test_one_connection_carries_many_answers_of_any_size(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for path, size in (("/small", 2), ("/large", 1_000_002), ("/small", 2)):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, body = await asyncio.wait_for(read_answer(reader), 10)
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        assert b"\r\nAudit-Id: id-1\r\n" in head
        assert b"\r\nDate: " in head
        assert len(body) == size
    writer.close()


async def test_a_client_that_wants_to_close_is_closed(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = await asyncio.wait_for(reader.read(), 10)
    assert b"\r\nConnection: close\r\n" in text
    assert text.endswith(b"{}")
    writer.close()


async def test_a_slow_reader_of_a_large_answer_gets_all_of_it(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0)
    _, body = await asyncio.wait_for(read_answer(reader), 10)
    assert len(body) == 1_000_002
    writer.close()
