"""The scheduler's process against the apiserver's: certificates, RBAC, leadership, bindings, its own service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from machinery.component.tls import channel_credentials
from protos.cutaway.v1 import scheduler_pb2, scheduler_pb2_grpc
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.scheduler_process import SchedulerProcess


def node(name: str) -> dict[str, Any]:
    status = {
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def pod(name: str, cpu: str = "100m") -> dict[str, Any]:
    container = {"name": "c", "image": "registry.example/web:1", "resources": {"requests": {"cpu": cpu}}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


@pytest.fixture(scope="module")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    server = ApiServerProcess(tmp_path_factory.mktemp("apiserver"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def client(apiserver: ApiServerProcess) -> AsyncIterator[ApiClient]:
    client = await ApiClient.connect(apiserver.grpc, files(apiserver.admin), user_agent="test")
    yield client
    await client.close()


async def bound(client: ApiClient, condition: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Follow pods until what is bound where satisfies the condition."""
    placed: dict[str, str] = {}
    async with asyncio.timeout(30):
        async for batch in client.watch(kinds.POD, "default"):
            for type, obj in batch.events:
                placed[obj.metadata.name] = obj.spec.nodeName or ""
                if type == "DELETED":
                    del placed[obj.metadata.name]
            if condition(placed):
                return placed
    raise AssertionError("unreachable")


async def test_the_process_schedules_explains_and_hands_over(
    apiserver: ApiServerProcess, client: ApiClient, tmp_path: Path
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, "default")
    for name in ("n0", "n1"):
        await client.create(kinds.NODE, node(name))
        await client.patch(kinds.NODE, name, "", {"status": node(name)["status"]}, subresource="status")
        await client.patch(kinds.NODE, name, "", {"spec": {"taints": None}})
    first = SchedulerProcess(apiserver, tmp_path, "first")
    first.start()
    try:
        for number in range(20):
            await client.create(kinds.POD, pod(f"p{number}"), "default")
        placed = await bound(client, lambda p: len(p) >= 20 and all(p.values()))
        assert set(placed.values()) == {"n0", "n1"}
        await client.create(kinds.POD, pod("huge", "64"), "default")
        credentials = channel_credentials(files(apiserver.admin))
        async with grpc.aio.secure_channel(f"127.0.0.1:{first.grpc_port}", credentials) as channel:
            stub = scheduler_pb2_grpc.SchedulerStub(channel)
            async with asyncio.timeout(10):
                while not (queue := await stub.Queue(scheduler_pb2.QueueRequest())).pods or not queue.pods[0].message:
                    await client.discover()
            assert [(p.pod, p.waits_for_plugins[0]) for p in queue.pods] == [("huge", "NodeResourcesFit")]
            explained = await stub.Explain(scheduler_pb2.ExplainRequest(namespace="default", pod="huge"))
            assert explained.summary.startswith("0/2 nodes are available: 2 Insufficient cpu.")
            assert explained.remedies[0].startswith("fits on n")
            assert "the cpu request is ≤ 3000m" in explained.remedies[0]
        # A second one waits, and takes over once the first gives its lease back.
        second = SchedulerProcess(apiserver, tmp_path, "second")
        second.start()
        try:
            assert first.stop() == 0
            await client.create(kinds.POD, pod("late"), "default")
            await bound(client, lambda p: bool(p.get("late")))
        finally:
            assert second.stop() == 0
    finally:
        if first.process is not None and first.process.poll() is None:
            first.stop(kill=True)
