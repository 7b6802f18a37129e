"""A scheduler that is killed again and again binds every pod once, to a node that has room for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient, Mutation
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.placement_checker import World
from tests.support.scheduler_process import SchedulerProcess
from tests.support.torture import figure, times

pytestmark = pytest.mark.torture

# The lease is short, so that it is soon free.
LEASE = {"lease_duration_seconds": 1.5, "renew_deadline_seconds": 1.0, "retry_period_seconds": 0.2}
SECONDS_MAX = 30.0
"""From a kill until everything is bound."""


def node(name: str) -> dict[str, Any]:
    offered = {"cpu": "1", "memory": "8Gi", "pods": "10"}
    labels = {"kubernetes.io/hostname": name}
    status = {"allocatable": offered, "capacity": offered}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def pod(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "registry.example/web:1", "resources": {"requests": {"cpu": "110m"}}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


async def create(client: ApiClient, nodes: list[str]) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, "default")
    mutations = [Mutation.create(kinds.NODE, node(name)) for name in nodes]
    mutations += [Mutation.patch(kinds.NODE, name, "", {"spec": {"taints": None}}) for name in nodes]
    assert not any(result.error for result in await client.batch(mutations))


async def wave(client: ApiClient, number: int, size: int) -> None:
    names = [f"p{n}" for n in range(number * size, (number + 1) * size)]
    results = await client.batch([Mutation.create(kinds.POD, pod(name), "default") for name in names])
    assert not any(result.error for result in results)


# Killed often with some pods waiting, and once with many.
@pytest.mark.parametrize(("waiting", "kills_wanted"), [(50, times(20, 2)), (times(500, 50), 1)])
async def test_every_pod_is_bound_once_and_no_node_is_overcommitted(
    tmp_path: Path, waiting: int, kills_wanted: int
) -> None:
    pods = waiting * (kills_wanted + 1)
    nodes = [f"n{number}" for number in range(pods // 8 + 2)]
    apiserver = ApiServerProcess(tmp_path)
    apiserver.start()
    client = await ApiClient.connect(apiserver.grpc, files(apiserver.admin), user_agent="test")
    scheduler = SchedulerProcess(apiserver, tmp_path, **LEASE)
    bound: dict[str, str] = {}
    kills = 0
    try:
        await create(client, nodes)
        scheduler.start()
        last_kill = time.monotonic()
        await wave(client, 0, waiting)
        async with asyncio.timeout(SECONDS_MAX * (kills_wanted + 1)):
            async for batch in client.watch(kinds.POD, "default"):
                for _, obj in batch.events:
                    name, where = obj.metadata.name, obj.spec.nodeName
                    if where:
                        assert bound.setdefault(name, where) == where, f"{name} was bound twice"
                if kills < kills_wanted and len(bound) > kills * waiting:
                    # In the middle of a wave; the next one comes while nobody schedules.
                    kills += 1
                    last_kill = time.monotonic()
                    scheduler.stop(kill=True)
                    await wave(client, kills, waiting)
                    scheduler.start()
                if len(bound) == pods:
                    break
        assert kills == kills_wanted
        took = time.monotonic() - last_kill
        figure(
            6,
            f"{kills} kills with {waiting} pods waiting: {pods} each bound once, all {took:.1f} s after the last kill",
        )
        assert took < SECONDS_MAX
        world = World([node(name) for name in nodes])
        for name, where in sorted(bound.items()):
            assert world.why_not(pod(name), where) == []
            world.place(pod(name), where)
    finally:
        await client.close()
        scheduler.stop()
        apiserver.stop()
