"""A scheduler in the test's process, against an apiserver over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.fake import FakeApiServer
from services.scheduler import config as scheduler_config
from services.scheduler.scheduler import Scheduler


def node(name: str, cpu: str = "4", memory: str = "8Gi", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110"}},
    }


def pod(name: str, cpu: str = "100m", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "web:1", "resources": {"requests": {"cpu": cpu}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [container], **spec},
    }


class World:
    """What a test sees: the server, a client, and the scheduler (replaced by `restart`)."""

    def __init__(self, server: FakeApiServer, client: ApiClient) -> None:
        self.server = server
        self.client = client
        self.scheduler: Scheduler
        self._task: asyncio.Task[None] | None = None

    async def start(self, extra: dict[str, Any] | None = None, configuration: Any = None) -> None:
        configuration = configuration or scheduler_config.read("")
        recorder = EventRecorder(self.client, "default-scheduler")
        self.scheduler = Scheduler(
            self.client,
            lambda handle: scheduler_config.build_profiles(configuration, extra, handle),
            recorder,
            backoff_seconds_first=0.05,
            backoff_seconds_max=0.1,
            random=np.random.default_rng(1),
        )

        async def run() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(recorder.run())
                await self.scheduler.follow(tasks)
                tasks.create_task(self.scheduler.run(self.client))

        self._task = asyncio.create_task(run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()
            self._task = None

    async def add_node(self, *args: Any, **kwargs: Any) -> None:
        body = node(*args, **kwargs)
        await self.client.create(kinds.NODE, body)

    async def add_pod(self, *args: Any, **kwargs: Any) -> None:
        await self.client.create(kinds.POD, pod(*args, **kwargs), "default")

    async def add_pod_with(self, name: str, **metadata: Any) -> None:
        body = pod(name)
        body["metadata"] |= metadata
        await self.client.create(kinds.POD, body, "default")

    def message(self, name: str) -> str:
        """What the pod's PodScheduled condition says."""
        found = self.server.state.get(kinds.POD, "default", name).get("status", {}).get("conditions", [])
        return next((c.get("message", "") for c in found if c["type"] == "PodScheduled"), "")

    def placements(self) -> dict[str, str]:
        pods = self.server.state.list(kinds.POD, "", lambda obj: True)
        return {p["metadata"]["name"]: p["spec"].get("nodeName", "") for p in pods}

    async def until(self, condition: Callable[[], bool], seconds: float = 20, *, awake: bool = False) -> None:
        """Look again after each write that reaches the server; `awake`: whenever anything has run here."""
        async with asyncio.timeout(seconds):
            while not condition():
                await (asyncio.sleep(0) if awake else self.server.changed())


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with FakeApiServer() as server:
        world = World(server, await server.client())
        yield world
        await world.stop()
