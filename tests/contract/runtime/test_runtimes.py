"""What the kubelet relies on of a runtime.

One suite over containerd's CRI plugin, Cutaway's own CRI server, and the hollow one; and over any other one:

    CUTAWAY_CONTRACT_CRI=unix:///run/my-runtime.sock pytest tests/contract/runtime/test_runtimes.py -k given

which must have the image docker.io/library/busybox:1.36, and a pod network.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.kubelet import container_config as cc
from services.kubelet.container_config import ContainerParts, NodeSettings
from services.kubelet.hollow.runtime import HollowRuntime
from services.kubelet.runtime import Runtime, RuntimeFailure, RuntimeNotFound, Unsupported
from services.kubelet.runtime_state import PodRuntime, State
from tests.support.kubelet_pods import pod as make_pod
from tests.support.private_containerd import BUSYBOX_IMAGE, PrivateContainerd, available

LIVE = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done"]
STUBBORN = ["sh", "-c", "trap '' TERM; while true; do sleep 0.05; done"]


GIVEN = os.environ.get("CUTAWAY_CONTRACT_CRI", "")


@pytest.fixture(scope="module", params=["plugin", "shim", "hollow", *(["given"] if GIVEN else [])])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """The socket of a real runtime; empty for the hollow one."""
    if request.param in ("hollow", "given"):
        yield GIVEN if request.param == "given" else ""
        return
    if not available():
        pytest.skip("needs root, containerd, runc and busybox")
    octet = 217 if request.param == "plugin" else 218
    with PrivateContainerd(
        "runtime-contract-", f"10.{octet}.0.0/24", f"rc{octet}", shim=request.param == "shim"
    ) as daemon:
        yield daemon.endpoint


@pytest_asyncio.fixture
async def runtime(endpoint: str) -> AsyncIterator[Any]:
    made: Any = Runtime(endpoint) if endpoint else HollowRuntime()
    yield made
    for uid, found in (await made.list_summary()).items():
        assert uid
        for sandbox in found.sandboxes:
            await made.stop_sandbox(sandbox.id)
            await made.remove_sandbox(sandbox.id)
    await made.close()


class World:
    """A pod on the runtime, made as the kubelet makes it."""

    def __init__(self, runtime: Any, root: Path, **spec: Any) -> None:
        self.runtime = runtime
        self.settings = NodeSettings("n", str(root / "logs"))
        self.pod = make_pod({"name": "c", "image": BUSYBOX_IMAGE}, **spec)
        self.pod.metadata.uid = str(uuid.uuid4())
        self.pod.metadata.name = f"p-{self.pod.metadata.uid[:8]}"
        self.config = cc.sandbox_config(self.pod, 0, self.settings, f"/runtime-contract/pod{self.pod.metadata.uid}")
        for name in ("c", "d"):
            Path(cc.pod_log_directory(str(root / "logs"), self.pod), name).mkdir(parents=True)
        self.sandbox = ""

    @property
    def uid(self) -> str:
        return str(self.pod.metadata.uid)

    async def run(self) -> str:
        self.sandbox = await self.runtime.run_sandbox(self.config)
        return self.sandbox

    async def create(self, command: list[str], restarts: int = 0) -> str:
        image = await self.runtime.image(BUSYBOX_IMAGE)
        parts = ContainerParts(image_ref=image.id, env={"A": "b"}, command=command)
        container = self.pod.spec.containers[0]
        config = cc.container_config(self.pod, container, restarts, self.settings, parts)
        return await self.runtime.create_container(self.sandbox, config, self.config)

    async def start(self, command: list[str], restarts: int = 0) -> str:
        container_id = await self.create(command, restarts)
        await self.runtime.start_container(container_id)
        return container_id

    async def until(self, test: Callable[[PodRuntime], bool]) -> PodRuntime:
        for _ in range(400):
            state = await self.runtime.pod(self.uid)
            if test(state):
                return state
            await asyncio.sleep(0.02)
        raise AssertionError(state)


@pytest.fixture
def world(runtime: Any, tmp_path: Path) -> World:
    return World(runtime, tmp_path)


async def test_a_sandbox_is_ready_with_an_address_and_its_identity(world: World) -> None:
    sandbox = await world.run()
    state = await world.runtime.pod(world.uid)
    assert state.ready_sandbox.id == sandbox
    assert state.ips
    assert (state.namespace, state.name) == ("ns", world.pod.metadata.name)
    assert (await world.runtime.list_summary())[world.uid].ready_sandbox.id == sandbox


async def test_a_container_is_created_then_running_then_ended(world: World) -> None:
    await world.run()
    container = await world.create(LIVE)
    state = await world.runtime.pod(world.uid)
    assert state.latest("c").state is State.CREATED
    await world.runtime.start_container(container)
    running = (await world.runtime.pod(world.uid)).latest("c")
    assert running.running
    assert running.started_at >= running.created_at > 0
    assert running.spec_hash
    await world.runtime.stop_container(container, 5)
    ended = (await world.runtime.pod(world.uid)).latest("c")
    assert ended.state is State.EXITED
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert ended.finished_at >= ended.started_at


async def test_a_container_ends_by_itself_with_its_code(world: World) -> None:
    await world.run()
    await world.start(["sh", "-c", "sleep 0.2; exit 3"])
    state = await world.until(lambda s: s.latest("c").state is State.EXITED)
    assert (state.latest("c").exit_code, state.latest("c").reason) == (3, "Error")


async def test_runs_of_a_container_are_told_apart_by_their_restart_count(world: World) -> None:
    await world.run()
    await world.start(["sh", "-c", "exit 1"])
    await world.until(lambda s: s.latest("c").state is State.EXITED)
    await world.start(LIVE, 1)
    state = await world.runtime.pod(world.uid)
    assert [r.restart_count for r in state.runs_of("c")] == [1, 0]
    assert state.latest("c").running


async def test_a_new_client_sees_the_same(world: World, endpoint: str) -> None:
    await world.run()
    container = await world.start(LIVE, 4)
    if not endpoint:
        return  # a hollow runtime lives in the kubelet's own process
    other = Runtime(endpoint)
    record = (await other.pod(world.uid)).latest("c")
    assert (record.id, record.name, record.restart_count) == (container, "c", 4)
    await other.close()


async def test_what_is_gone_is_gone_quietly(world: World) -> None:
    await world.run()
    container = await world.start(LIVE)
    for _ in range(2):
        await world.runtime.stop_sandbox(world.sandbox)
    state = await world.runtime.pod(world.uid)
    assert state.ready_sandbox is None
    assert not state.running
    for _ in range(2):
        await world.runtime.remove_container(container)
        await world.runtime.remove_sandbox(world.sandbox)
        await world.runtime.stop_container(container, 1)
    assert world.uid not in await world.runtime.list_summary()


async def test_starting_what_is_not_there_fails(world: World) -> None:
    with pytest.raises(RuntimeNotFound):
        await world.runtime.start_container("0" * 64)
    world.sandbox = "0" * 64
    with pytest.raises(RuntimeFailure):
        await world.create(LIVE)


async def test_commands_in_a_container(world: World) -> None:
    await world.run()
    container = await world.start(LIVE)
    assert (await world.runtime.exec_sync(container, ["echo", "hi"], 5))[:2] == (0, b"hi\n")
    assert (await world.runtime.exec_sync(container, ["sh", "-c", "exit 5"], 5))[0] == 5
    with pytest.raises(RuntimeFailure):
        await world.runtime.exec_sync(container, ["sleep", "30"], 1)


async def test_usage_is_told_of_running_containers(world: World) -> None:
    await world.run()
    container = await world.start(LIVE)
    await asyncio.sleep(0.3)
    stats = {s.attributes.id: s for s in await world.runtime.container_stats()}
    assert stats[container].memory.working_set_bytes.value > 0
    assert stats[container].cpu.usage_core_nano_seconds.value > 0
    assert stats[container].attributes.labels[cc.LABEL_UID] == world.uid


async def test_changes_are_pushed(world: World) -> None:
    """By a stream of events where the runtime has one; the kubelet polls where it has not."""
    seen: list[str] = []
    if isinstance(world.runtime, HollowRuntime):
        world.runtime.changed = lambda uid, state: seen.append(uid)
        await world.run()
        await world.start(["sh", "-c", "exit 0"])
        await asyncio.sleep(0.05)
        assert world.uid in seen
        return

    async def listen() -> None:
        async for event in world.runtime.events():
            seen.append(event.pod_sandbox_status.metadata.uid)

    task: Awaitable[None] = asyncio.ensure_future(listen())
    await asyncio.sleep(0.2)
    if task.done():
        with pytest.raises(Unsupported):
            await task
        return
    await world.run()
    await world.start(["sh", "-c", "exit 0"])
    await world.until(lambda s: s.latest("c").state is State.EXITED)
    await asyncio.sleep(0.2)
    task.cancel()
    assert world.uid in seen
