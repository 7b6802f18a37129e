"""Hollow nodes against an apiserver in memory: pods live and end as their annotations say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest_asyncio

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient, PatchType
from machinery.client.fake import FakeApiServer
from services.kubelet.hollow.fleet import Fleet, HollowConfig

PREFIX = "hollow.cutaway.dev/"


class Stop(Exception):
    """Ends the fleet's task group."""


@pytest_asyncio.fixture
async def client() -> AsyncIterator[ApiClient]:
    """A client of an apiserver with three hollow nodes."""
    async with FakeApiServer() as server:
        made = await server.client()
        ready, done = asyncio.Event(), asyncio.Event()

        async def run() -> None:
            try:
                async with asyncio.TaskGroup() as tasks:
                    await Fleet(HollowConfig(nodes=["3"]), await server.client(), tasks).start()
                    ready.set()
                    await done.wait()
                    raise Stop
            except* Stop:
                pass

        task = asyncio.create_task(run())
        await asyncio.wait_for(ready.wait(), 10)
        yield made
        done.set()
        await task


async def pod(client: ApiClient, name: str, annotations: dict | None = None, **spec: Any) -> None:
    marks = {PREFIX + key: value for key, value in (annotations or {}).items()}
    containers = spec.pop("containers", [{"name": "c", "image": "i"}])
    metadata = {"name": name, "namespace": "default", "annotations": marks}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    await client.create(
        kinds.POD, {**body, "spec": {"nodeName": "hollow-1", "containers": containers, **spec}}, "default"
    )


async def until(client: ApiClient, name: str, test: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(10):
        async for batch in client.watch(kinds.POD, "default", field_selector=f"metadata.name={name}"):
            for _, found in batch.events:
                if found.status and test(found):
                    return found
    raise AssertionError("the watch ended")


def ready(found: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in found.status.conditions or [])


async def test_nodes_are_registered_ready_with_leases(client: ApiClient) -> None:
    nodes = (await client.list(kinds.NODE)).items
    assert sorted(n.metadata.name for n in nodes) == ["hollow-0", "hollow-1", "hollow-2"]
    assert all(any(c.type == "Ready" and c.status == "True" for c in n.status.conditions) for n in nodes)
    async with asyncio.timeout(5):
        while len((await client.list(kinds.LEASE)).items) < 3:  # noqa: ASYNC110 - nothing tells of the next renewal
            await asyncio.sleep(0.01)


async def test_a_pod_becomes_ready_and_goes(client: ApiClient) -> None:
    await pod(client, "p")
    found = await until(client, "p", ready)
    assert found.status.podIP
    await client.delete(kinds.POD, "p", "default", grace_period_seconds=1)
    async with asyncio.timeout(5):
        while True:
            try:
                await client.get(kinds.POD, "p", "default")
            except errors.NotFound:
                return
            await asyncio.sleep(0.01)


async def test_a_job_ends_as_told(client: ApiClient) -> None:
    await pod(client, "good", {"run-seconds": "0.1"}, restartPolicy="Never")
    await pod(client, "bad", {"run-seconds": "0.1", "exit-code": "3"}, restartPolicy="Never")
    await until(client, "good", lambda p: p.status.phase == "Succeeded")
    bad = await until(client, "bad", lambda p: p.status.phase == "Failed")
    assert bad.status.containerStatuses[0].state.terminated.exitCode == 3


async def test_a_crash_loop_backs_off(client: ApiClient) -> None:
    await pod(client, "p", {"run-seconds": "0", "exit-code": "1"})

    def waits(found: Any) -> bool:
        entries = found.status.containerStatuses
        return bool(entries and entries[0].state.waiting and entries[0].state.waiting.reason == "CrashLoopBackOff")

    found = await until(client, "p", waits)
    assert found.status.containerStatuses[0].restartCount >= 1


async def test_readiness_comes_when_it_is_told_to(client: ApiClient) -> None:
    probe = {"httpGet": {"port": 80}, "periodSeconds": 1}
    await pod(client, "p", {"readiness": "0.5"}, containers=[{"name": "c", "image": "i", "readinessProbe": probe}])
    await until(client, "p", lambda p: p.status.phase == "Running" and not ready(p))
    await until(client, "p", ready)


async def test_init_containers_end_and_sidecars_stay(client: ApiClient) -> None:
    inits = [{"name": "i", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}]
    await pod(client, "p", initContainers=inits)
    found = await until(client, "p", ready)
    first, second = found.status.initContainerStatuses
    assert first.state.terminated.exitCode == 0
    assert second.state.running is not None


async def test_a_node_takes_no_more_than_it_has(client: ApiClient) -> None:
    wants = {"requests": {"cpu": "100"}}
    await pod(client, "p", containers=[{"name": "c", "image": "i", "resources": wants}])
    found = await until(client, "p", lambda p: p.status.phase == "Failed")
    assert found.status.reason == "OutOfcpu"


async def test_a_node_that_was_given_up_says_again_that_it_is_ready(client: ApiClient) -> None:
    unknown = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "nothing was heard"}]
    patch = {"status": {"conditions": unknown}}
    await client.patch(kinds.NODE, "hollow-1", "", patch, type=PatchType.MERGE, subresource="status")
    async with asyncio.timeout(10):
        async for batch in client.watch(kinds.NODE, field_selector="metadata.name=hollow-1"):
            for _, node in batch.events:
                ready = next(c.status for c in node.status.conditions if c.type == "Ready")
                if ready == "True":
                    return
