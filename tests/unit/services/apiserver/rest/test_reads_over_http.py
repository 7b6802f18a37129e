"""What comes over HTTP are the stored bytes: neither GET nor LIST nor WATCH decodes an object on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest

from services.apiserver import codec
from services.apiserver.rest import protobuf
from services.apiserver.rest.app import RestServer
from tests.support.apiserver_core import CoreClient

MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
async def port(core: CoreClient) -> AsyncIterator[int]:
    """The REST front without TLS, where whoever comes is anonymous and may do everything."""
    rules = [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]
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


async def ask(
    port: int, target: str, accept: str = "*/*", status: str = "200 OK"
) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(f"HTTP/1.1 {status}\r\n".encode()), head + await reader.read(500)
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


PROTOBUF = "application/vnd.kubernetes.protobuf"
CRDS = "apiextensions.k8s.io"


def field(data: bytes, number: int) -> bytes:
    """A length-delimited field of a message whose fields are all such."""
    at = 0
    while at < len(data):
        found, length, shift = data[at] >> 3, 0, 0
        while True:
            at += 1
            length |= (data[at] & 0x7F) << shift
            shift += 7
            if data[at] < 0x80:
                break
        at += 1
        if found == number:
            return data[at : at + length]
        at += length
    return b""


async def test_who_takes_protobuf_alone_gets_a_watch_in_frames(core: CoreClient, port: int) -> None:
    await core.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "v" * 300}}, "default")
    head, reader, writer = await ask(
        port, f"{MAPS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        f"{PROTOBUF};stream=watch",
    )  # fmt: skip
    assert f"Content-Type: {PROTOBUF};stream=watch".encode() in head
    seen: list[tuple[str, dict[str, Any]]] = []
    left = b""
    while len(seen) < 3:
        left += await chunk_of(reader)
        while left:
            size = int.from_bytes(left[:4], "big")
            event, left = left[4 : 4 + size], left[4 + size :]
            seen.append((field(event, 1).decode(), protobuf.decode(field(field(event, 2), 1))))
        if len(seen) == 2:
            await core.create("configmaps", {"metadata": {"name": "b"}}, "default")
    writer.close()
    assert [kind for kind, _ in seen] == ["ADDED", "BOOKMARK", "ADDED"]
    assert seen[0][1]["data"] == {"k": "v" * 300}
    assert seen[1][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert seen[2][1]["metadata"]["name"] == "b"


async def test_custom_resources_have_no_protobuf(core: CoreClient, port: int) -> None:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    spec = {"group": "x.io", "scope": "Namespaced", "names": names, "versions": [version]}
    changed = asyncio.Event()
    core.core.registry.on_change(changed.set)
    await core.create("customresourcedefinitions", {"metadata": {"name": "things.x.io"}, "spec": spec}, group=CRDS)
    async with asyncio.timeout(10):
        while core.core.registry.find("x.io", "v1", "things") is None:
            await changed.wait()
            changed.clear()
    things = "/apis/x.io/v1/namespaces/default/things"
    for target, accept in ((things, PROTOBUF), (f"{things}?watch=1", f"{PROTOBUF};stream=watch")):
        _, _, writer = await ask(port, target, accept, "406 Not Acceptable")
        writer.close()
        _, _, writer = await ask(port, target, f"{accept},application/json")
        writer.close()


@pytest.mark.parametrize("target", ["/version", MAPS, f"{MAPS}/a"])
async def test_a_timeout_is_a_duration(core: CoreClient, port: int, target: str) -> None:
    await core.create("configmaps", {"metadata": {"name": "a"}}, "default")
    for timeout, status in (("invalid", "400 Bad Request"), ("3m", "200 OK"), ("0s", "200 OK")):
        _, _, writer = await ask(port, f"{target}?timeout={timeout}", status=status)
        writer.close()


async def test_openapi_documents_leave_out_what_is_empty(port: int) -> None:
    assert b'"parameters":[]' not in (await body_of(port, "/openapi/v3/apis/policy/v1")).replace(b" ", b"")
