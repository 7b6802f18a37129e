"""What comes over HTTP are the stored bytes: neither GET nor LIST nor WATCH decodes an object on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest

from services.apiserver import codec
from services.apiserver.rest.app import RestServer
from tests.support.apiserver_core import CoreClient

MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
async def port(core: CoreClient) -> AsyncIterator[int]:
    """The REST front without TLS, where whoever comes is anonymous and may do everything."""
    rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    await core.create("clusterroles", {"metadata": {"name": "all"}, "rules": rules}, group=RBAC)
    binding = {
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "all"},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": "system:anonymous"}],
    }
    await core.create("clusterrolebindings", binding, group=RBAC)
    server = RestServer(core.core.handlers, core.core.authenticator, core.core.authorizer)
    yield await server.start("127.0.0.1", 0, None)
    await server.stop(0)


def refuse_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on only the task that calls this, which writes, may decode."""
    writer = asyncio.current_task()

    def guarded(decode: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            assert asyncio.current_task() is writer, "an object was decoded on the read path"
            return decode(*arguments, **options)

        return call

    for module, name in ((orjson, "loads"), (msgspec.json, "decode"), (codec, "decode")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))


async def ask(port: int, target: str) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head + await reader.read(500)
    return head, reader, writer


async def body_of(port: int, target: str) -> bytes:
    head, reader, writer = await ask(port, target)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    body = await asyncio.wait_for(reader.readexactly(length), 10)
    writer.close()
    return body


async def chunk_of(reader: asyncio.StreamReader) -> bytes:
    size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 10), 16)
    return (await asyncio.wait_for(reader.readexactly(size + 2), 10))[:-2]


async def test_get_list_and_watch_send_the_stored_bytes_and_decode_nothing(
    core: CoreClient, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        await core.create("configmaps", {"metadata": {"name": name, "labels": {"is": name}}}, "default")
    refuse_decoding(monkeypatch)
    a, b = (entry.value for entry in core.core.cache.of("configmaps").listed("default"))
    revision = core.core.cache.revision
    assert await body_of(port, f"{MAPS}/a") == a
    head = b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[' % revision
    assert await body_of(port, MAPS) == head + a + b"," + b + b"]}"
    assert await body_of(port, f"{MAPS}?labelSelector=is%3Db") == head + b + b"]}"

    watches = [await ask(port, f"{MAPS}?watch=1&resourceVersion={revision}") for _ in range(3)]
    _, selecting, _ = selected = await ask(port, f"{MAPS}?watch=1&labelSelector=is%3Db")
    assert await chunk_of(selecting) == b'{"type":"ADDED","object":' + b + b"}\n"
    await core.patch("configmaps", "b", {"data": {"k": "v"}}, "default")
    changed = core.core.cache.of("configmaps").get("default", "b")
    assert changed is not None
    line = b'{"type":"MODIFIED","object":' + changed.value + b"}\n"
    for _, reader, _ in watches:
        assert await chunk_of(reader) == line
    assert await chunk_of(selecting) == line
    for _, _, writer in (*watches, selected):
        writer.close()


async def test_a_write_is_answered_with_the_committed_bytes(core: CoreClient, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = b'{"metadata":{"name":"c"},"data":{"k":"v"}}'
    for status, name in ((b"201 Created", "c"), (b"409 Conflict", "c")):
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (MAPS.encode(), len(text), text)
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nAudit-Id: " in head
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        body = await reader.readexactly(length)
        entry = core.core.cache.of("configmaps").get("default", name)
        assert entry is not None
        assert status != b"201 Created" or body == entry.value
    writer.close()
