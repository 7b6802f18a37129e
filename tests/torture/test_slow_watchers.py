"""11. Watchers that do not read: each is told that it was too slow, and costs neither the others nor much memory."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient, Mutation
from machinery.component.tls import TlsFiles
from protos.cutaway.v1 import apiserver_pb2, apiserver_pb2_grpc
from services.apiserver.watcher import PENDING_MAX
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.memory import resident_mb
from tests.support.rest import Rest, Watch
from tests.support.torture import figure, full_only

SLOW = 20
"""So many over REST and as many over gRPC."""
OBJECTS = 100
ROUNDS = (PENDING_MAX + 12_000) // OBJECTS
GROWN_MB_MAX = 200.0
PATH = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, turn: int) -> dict[str, object]:
    data = {"turn": str(turn), "ballast": "x" * 1000}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def to_the_end(watch: Watch, after: int) -> tuple[int, int]:
    """The last revision that a REST watch shows before it is told, and how many events; they come in order."""
    count = 0
    while True:
        event = await watch.next(30)
        assert event is not None, "it ended without a word"
        if event["type"] == "ERROR":
            assert event["object"]["code"] == 410
            assert "too slow" in event["object"]["message"]
            return after, count
        revision = int(event["object"]["metadata"]["resourceVersion"])
        assert revision > after
        after, count = revision, count + 1


def channel(tls: TlsFiles, address: str) -> grpc.aio.Channel:
    """A connection of its own, as each client has."""
    read = [Path(name).read_bytes() for name in (tls.ca_file, tls.key_file, tls.cert_file)]
    return grpc.aio.secure_channel(
        address, grpc.ssl_channel_credentials(*read), options=[("grpc.use_local_subchannel_pool", 1)]
    )


def stub_of(one: grpc.aio.Channel) -> Any:
    return apiserver_pb2_grpc.ApiServerStub(one)  # type: ignore[no-untyped-call]


@full_only
@pytest.mark.timeout(600)
async def test_who_does_not_read_is_told_and_nobody_waits_for_them(tmp_path: Path) -> None:
    server = ApiServerProcess(tmp_path).start()
    try:
        assert server.process is not None
        tls = files(server.admin)
        client = await ApiClient.connect(server.grpc, tls, user_agent="test")
        async with Rest(server) as rest:
            _, listed = await rest.get(PATH)
            first = int(listed["metadata"]["resourceVersion"])
            contexts = [rest.watch(PATH, resourceVersion=first) for _ in range(SLOW)]
            slow_rest = [await context.__aenter__() for context in contexts]
            channels = [channel(tls, server.grpc) for _ in range(SLOW)]
            request = apiserver_pb2.WatchRequest(
                resource=kinds.CONFIG_MAP.ref, namespace="default", after_revision=first
            )
            slow_grpc = [stub_of(one).Watch(request) for one in channels]
            await asyncio.gather(*(stream.initial_metadata() for stream in slow_grpc))
            before = resident_mb(server.process.pid)
            lags: list[float] = []
            last = first + OBJECTS * ROUNDS
            written: dict[int, float] = {}

            async def follow() -> None:
                seen = first
                async for batch in client.watch_raw(kinds.CONFIG_MAP, "default", after_revision=first):
                    for event in batch.events:
                        assert event.object.revision > seen
                        seen = event.object.revision
                    if seen in written:
                        lags.append(time.monotonic() - written[seen])
                    if seen >= last:
                        return

            following = asyncio.create_task(follow())
            began = time.monotonic()
            for turn in range(ROUNDS):
                make = Mutation.create if turn == 0 else Mutation.update
                wanted = [make(kinds.CONFIG_MAP, config_map(f"c{n}", turn), "default") for n in range(OBJECTS)]
                results = await client.batch(wanted, timeout=60)
                assert not [result.error for result in results if result.error]
                written[first + (turn + 1) * OBJECTS] = time.monotonic()
            took = time.monotonic() - began
            async with asyncio.timeout(60):
                await following
            grown = resident_mb(server.process.pid) - before

            for watch in slow_rest:
                told, count = await to_the_end(watch, first)
                assert told < last
                assert told - first == count, "a slow watch has a gap before it was told"
            for stream in slow_grpc:
                after, ended = first, ""
                try:
                    async for batch in stream:
                        for event in batch.events:
                            assert event.object.revision == after + 1
                            after = event.object.revision
                except grpc.aio.AioRpcError as error:
                    ended = f"{error.code().name}: {error.details()}"
                assert "too slow" in ended, ended
                assert after < last
            for context in contexts:
                await context.__aexit__(None, None, None)
            await asyncio.gather(*(one.close() for one in channels))
        await client.close()
    finally:
        if server.process is not None:
            server.stop()
    figure(
        11,
        f"{2 * SLOW} watchers that do not read, {last - first} writes ({(last - first) / took:.0f}/s): each is told; "
        f"who reads sees a write after {sorted(lags)[len(lags) // 2] * 1000:.0f} ms; memory grew by {grown:.0f} MB",
    )
    assert grown < GROWN_MB_MAX
