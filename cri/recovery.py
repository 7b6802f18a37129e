"""Finding again what a predecessor left: after a restart of the shim, and after one of containerd.

    records on disk ──┐
    containers        ├──▶ sandboxes and containers in memory, streams attached again, exits caught up with
    tasks             ┘

Nothing that runs is touched. What is half made (a snapshot without a container, a container without a record,
a directory without a sandbox) is taken away.
"""

import asyncio
import shutil
import signal
from collections.abc import Iterable
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri

from cri import container_exit, idmapped, namespaces, orphans, records, status
from cri import containerd_api as api
from cri.container_create import CONTAINER_LABEL
from cri.container_io import ContainerIO, LogFile, exists
from cri.container_remove import remove_snapshot
from cri.errors import CriError, NotFound, from_grpc
from cri.logs import log
from cri.records import ContainerRecord, SandboxRecord, StatusRecord
from cri.runtime import Runtime
from cri.state import Container, Sandbox, container_name, now

# containerd.v1.types.Status
_CREATED, _STOPPED = 1, 3


async def load(runtime: Runtime) -> None:
    """Fills the store from disk and from containerd. Called once, before the CRI is served."""
    _load_sandboxes(runtime)
    listed = (await runtime.containerd.containers.List(api.containers.ListContainersRequest())).containers
    for item in listed:
        if CONTAINER_LABEL in item.labels:
            await _load_container(runtime, item)
    await _sweep(runtime)
    log.info("recovered", sandboxes=len(runtime.store.sandboxes), containers=len(runtime.store.containers))


def _load_sandboxes(runtime: Runtime) -> None:
    directory = runtime.root / "sandboxes"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.iterdir():
        record = records.read(path / "record.json", SandboxRecord)
        if record is None or record.id != path.name:
            log.warning("a sandbox directory without a record was removed", sandbox=path.name)
            shutil.rmtree(path, ignore_errors=True)
            continue
        sandbox = Sandbox(record, runtime.root, runtime.state)
        if record.ready and not _alive(sandbox):
            log.info("a sandbox's namespaces are gone (reboot?)", sandbox=record.id)
            record.ready = False
            sandbox.save()
        runtime.store.sandboxes.reserve(sandbox.name, sandbox.id)
        runtime.store.sandboxes.add(sandbox)


def _alive(sandbox: Sandbox) -> bool:
    wanted = [] if sandbox.record.host_network else ["net", "uts"]
    if sandbox.namespace_options.ipc != cri.NODE:
        wanted.append("ipc")
    if sandbox.ids:
        wanted.append("user")
    return all(namespaces.is_pinned(sandbox.state / kind) for kind in wanted)


async def _load_container(runtime: Runtime, item: Any) -> None:
    try:
        record = records.decode(item.extensions[records.EXTENSION_NAME].value, ContainerRecord)
    except ValueError:
        log.warning("a container of ours without a readable record is left alone", container=item.id)
        return
    sandbox = runtime.store.sandboxes.find(record.sandbox_id)
    known = records.read(runtime.root / "containers" / item.id / "status.json", StatusRecord)
    container = Container(item.id, record, known or StatusRecord(), runtime.root)
    container.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sandbox:
        runtime.store.containers.reserve(container_name(container.config.metadata, sandbox.config.metadata), item.id)
    runtime.store.containers.add(container)


async def _sweep(runtime: Runtime) -> None:
    """Takes away what an interrupted creation or removal left."""
    wanted = {container.id for container in runtime.store.containers}
    snapshots = api.snapshots.ListSnapshotsRequest(snapshotter=runtime.config.snapshotter)
    stale: list[str] = []
    try:
        async for answer in runtime.containerd.snapshots.stream("List", snapshots):
            for info in answer.info:
                owner = info.labels.get(CONTAINER_LABEL, "")
                if (owner and owner not in wanted) or info.name.startswith("accounts-"):
                    stale.append(info.name)
    except grpc.aio.AioRpcError as error:
        raise from_grpc(error, "containerd snapshots.List") from error
    for name in stale:
        try:
            await remove_snapshot(runtime, name)
        except CriError as error:
            log.warning("a stale snapshot could not be removed", snapshot=name, error=str(error))
    await asyncio.to_thread(_sweep_directories, runtime, wanted)


def _sweep_directories(runtime: Runtime, containers: Iterable[str]) -> None:
    keep = set(containers)
    idmapped.sweep(runtime.stages, keep)
    for directory in (runtime.root / "containers", runtime.state / "io"):
        if directory.is_dir():
            for path in directory.iterdir():
                if path.name not in keep:
                    shutil.rmtree(path, ignore_errors=True)


async def resync(runtime: Runtime) -> None:
    """Compares every container with containerd's tasks: attaches to what runs, settles what has ended."""
    listed = (await runtime.containerd.tasks.List(api.tasks.ListTasksRequest())).tasks
    tasks = {task.id: task for task in listed}
    for container in runtime.store.containers:
        if container.state != cri.CONTAINER_EXITED or container.id in tasks:
            await _reconcile(runtime, container)
    for sandbox in runtime.store.sandboxes:
        task = tasks.get(sandbox.id)
        if sandbox.ready and sandbox.record.init_pid and (task is None or task.status == _STOPPED):
            sandbox_lost(runtime, sandbox)
    for container_id, exec_id in runtime.exits.waiting():
        await _check_exec(runtime, container_id, exec_id)


async def _reconcile(runtime: Runtime, container: Container) -> None:
    """Brings one container and its task together. The task is asked for under the lock: a start may be under way."""
    async with container.lock:
        task = await _task(runtime, container.id)
        if container.state == cri.CONTAINER_EXITED:
            if task is not None:
                await _discard(runtime, container, task)
        elif task is None:
            if container.state == cri.CONTAINER_RUNNING:
                _settle_missing(runtime, container)
            elif exists(runtime.state / "io" / container.id):
                await _settle_interrupted(runtime, container)
        elif task.status == _CREATED:
            await _settle_unstarted(runtime, container, task)
        elif task.status == _STOPPED:
            await _settle_stopped(runtime, container, task)
        else:
            _adopt(runtime, container, task)


async def _task(runtime: Runtime, container_id: str) -> Any:
    """containerd's task of a container, or None."""
    try:
        return (await runtime.containerd.tasks.Get(api.tasks.GetRequest(container_id=container_id))).process
    except NotFound:
        return None


async def _discard(runtime: Runtime, container: Container, task: Any) -> None:
    """A task of a container that counts as ended: one that still runs is killed, and deleted by its exit."""
    try:
        if task.status == _STOPPED:
            await container_exit.delete_task(runtime, container)
            return
        request = api.tasks.KillRequest(container_id=container.id, signal=signal.SIGKILL, all=True)
        await runtime.containerd.tasks.Kill(request)
    except CriError as error:
        log.warning("could not discard a task", container=container.id, error=str(error))


async def _settle_unstarted(runtime: Runtime, container: Container, task: Any) -> None:
    """A task was created and its process never started: who asked for it was told of a failure."""
    container.status.started_at = 0
    reason = "its start was interrupted"
    container_exit.settle(container, container_exit.START_FAILED_EXIT_CODE, now(), "StartError", reason)
    container_exit.publish_stopped(runtime, container)
    await _discard(runtime, container, task)


def sandbox_lost(runtime: Runtime, sandbox: Sandbox) -> None:
    """The process that held the pid namespace has ended: nothing can be started there any more."""
    sandbox.record.ready = False
    sandbox.save()
    status.publish(runtime, cri.CONTAINER_STOPPED_EVENT, sandbox)


async def _settle_interrupted(runtime: Runtime, container: Container) -> None:
    """A start that was under way when we were killed, and of which containerd knows nothing."""
    others = [c for c in runtime.store.containers_of(container.sandbox_id) if c.state == cri.CONTAINER_RUNNING]
    await asyncio.to_thread(orphans.end, container.id, runtime.config, shim_too=not others)
    await asyncio.to_thread(shutil.rmtree, runtime.state / "io" / container.id, True)
    sandbox = runtime.store.sandboxes.find(container.sandbox_id)
    if sandbox:
        sandbox.interrupted = True
    reason = "its start was interrupted"
    container_exit.settle(container, container_exit.START_FAILED_EXIT_CODE, now(), "StartError", reason)
    container_exit.publish_stopped(runtime, container)


def _adopt(runtime: Runtime, container: Container, task: Any) -> None:
    """A running task: known, or started by a predecessor that was killed before it wrote so."""
    if container.io is None:
        container.io = _attach(runtime, container)
    if container.state == cri.CONTAINER_CREATED:
        container.status.started_at = now()
    container.status.pid = task.pid
    container.save()


def _attach(runtime: Runtime, container: Container) -> ContainerIO | None:
    """Opens the fifos of a running container again; their writer, containerd's shim, still has them."""
    directory = runtime.state / "io" / container.id
    if not exists(directory):
        return None
    path = container.record.log_path
    try:
        log_file = LogFile(path) if path else None
    except OSError as error:
        log.error("a container's log can't be opened", container=container.id, error=str(error))
        log_file = None
    config = container.config
    io = ContainerIO(
        directory, tty=config.tty, stdin=config.stdin, log_file=log_file, line_bytes=runtime.config.max_log_line_bytes
    )
    io.open()
    return io


def _settle_missing(runtime: Runtime, container: Container) -> None:
    if container.io:
        container.io.drain()
        container.io.remove()
        container.io = None
    container_exit.settle(container, container_exit.UNKNOWN_EXIT_CODE, now(), "Unknown", "its task is gone")
    container_exit.publish_stopped(runtime, container)


async def _settle_stopped(runtime: Runtime, container: Container, task: Any) -> None:
    if container.state == cri.CONTAINER_CREATED:
        # Started and ended before its start was written down.
        container.status.started_at = now()
    if container.io is None:
        container.io = _attach(runtime, container)
    if container.io:
        container.io.drain()
    at = task.exited_at.seconds * 1_000_000_000 + task.exited_at.nanos
    await container_exit.settle_running(runtime, container, task.exit_status, at)


async def _check_exec(runtime: Runtime, container_id: str, exec_id: str) -> None:
    """An executed process whose end may have been missed."""
    try:
        request = api.tasks.GetRequest(container_id=container_id, exec_id=exec_id)
        process = (await runtime.containerd.tasks.Get(request)).process
        if process.status == _STOPPED:
            runtime.exits.settle(container_id, exec_id, process.exit_status)
    except CriError:
        runtime.exits.settle(container_id, exec_id, container_exit.UNKNOWN_EXIT_CODE)
