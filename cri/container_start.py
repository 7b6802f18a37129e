"""StartContainer: fifos and log, containerd's task, the process."""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from typing import Any

from cri_api.v1 import api_pb2 as cri

from cri import container_exit, id_maps, status
from cri import containerd_api as api
from cri.container_io import ContainerIO, LogFile
from cri.errors import CriError, FailedPrecondition, Internal, Unavailable
from cri.idmapped import Layer, Stage
from cri.logs import log
from cri.pause import runc_options
from cri.runtime import Runtime
from cri.state import Container, Sandbox, now

# The shim process of a pod ends with its last task; a task that is created at that moment finds its socket closing.
_SHIM_ATTEMPTS = 3
_SHIM_CLOSING = ("ttrpc: closed", "ttrpc: server closed", "connection refused", "connection reset", "broken pipe")


async def start_container(runtime: Runtime, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
    container = runtime.store.containers.get(request.container_id)
    sandbox = runtime.store.sandboxes.get(container.sandbox_id)
    # Shielded: a client that goes away leaves a container that has started or one that has failed, nothing between.
    await asyncio.shield(_start(runtime, sandbox, container))
    return cri.StartContainerResponse()


async def _start(runtime: Runtime, sandbox: Sandbox, container: Container) -> None:
    async with container.lock:
        if container.state != cri.CONTAINER_CREATED or container.removing:
            name = cri.ContainerState.Name(container.state)
            raise FailedPrecondition(f"container {container.id} is in state {name}: only a created one can be started")
        if not sandbox.ready:
            raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
        try:
            container.io = open_io(runtime, container)
            container.status.pid = await _run(runtime, sandbox, container)
        except (CriError, OSError) as error:
            await _failed(runtime, container, error)
            if isinstance(error, OSError):
                raise Internal(f"container {container.config.metadata.name}: {error}") from error
            raise
        container.status.started_at = now()
        container.save()
    status.publish(runtime, cri.CONTAINER_STARTED_EVENT, sandbox, container)


def open_io(runtime: Runtime, container: Container) -> ContainerIO:
    """New fifos, already read, and the log file."""
    config = container.config
    path = container.record.log_path
    io = ContainerIO(
        runtime.state / "io" / container.id,
        tty=config.tty,
        stdin=config.stdin,
        log_file=LogFile(path) if path else None,
        line_bytes=runtime.config.max_log_line_bytes,
    )
    try:
        io.create()
        io.open()
    except OSError:
        io.remove()
        raise
    return io


async def _run(runtime: Runtime, sandbox: Sandbox, container: Container) -> int:
    """Creates the task and starts its process; returns the pid."""
    ctd, io = runtime.containerd, container.io
    assert io is not None
    key = api.snapshots.MountsRequest(snapshotter=runtime.config.snapshotter, key=container.id)
    mounts = (await ctd.snapshots.Mounts(key)).mounts
    stage = Stage(runtime.stages / container.id)
    request = api.tasks.CreateTaskRequest(
        container_id=container.id,
        # The root of a pod with users of its own is mounted by us.
        rootfs=[] if sandbox.ids else mounts,
        stdin=io.path("stdin"),
        stdout=io.path("stdout"),
        stderr=io.path("stderr"),
        terminal=container.config.tty,
        options=runc_options(runtime),
    )
    async with sandbox.shim_lock:
        try:
            if sandbox.ids:
                await asyncio.to_thread(_make_stage, stage, mounts, sandbox, container)
            await _create_task(runtime, request)
        finally:
            if sandbox.ids:
                await asyncio.to_thread(stage.unmount)
    return int((await ctd.tasks.Start(api.tasks.StartRequest(container_id=container.id))).pid)


def _make_stage(stage: Stage, mounts: Sequence[Any], sandbox: Sandbox, container: Container) -> None:
    """The root file system and the volumes of a container as the pod's own users see them. Blocking."""
    assert sandbox.ids is not None
    layers = [Layer(mount.type, mount.source, tuple(mount.options)) for mount in mounts]
    sources = {
        index: os.path.realpath(mount.host_path)
        for index, mount in enumerate(container.config.mounts)
        if mount.host_path and id_maps.of_mount(mount, sandbox.ids)
    }
    stage.make(layers, sources, str(sandbox.state / "user"), sandbox.ids)


async def _create_task(runtime: Runtime, request: object) -> None:
    for attempt in range(1, _SHIM_ATTEMPTS + 1):
        try:
            await runtime.containerd.tasks.Create(request)
            return
        except CriError as error:
            closing = isinstance(error, Unavailable) or any(text in str(error) for text in _SHIM_CLOSING)
            if not closing or attempt == _SHIM_ATTEMPTS:
                raise
            log.info("the pod's shim process was ending; creating the task again", attempt=attempt)
            await asyncio.sleep(0.05 * attempt)


async def _failed(runtime: Runtime, container: Container, error: Exception) -> None:
    if container.io:
        container.io.remove()
        container.io = None
    with contextlib.suppress(CriError):
        # A task that was created and not started holds a waiting process, which must end before it can be deleted.
        await runtime.containerd.tasks.Kill(api.tasks.KillRequest(container_id=container.id, signal=9, all=True))
    with contextlib.suppress(CriError):
        await container_exit.delete_task(runtime, container)
    message = str(error)
    container_exit.settle(container, container_exit.START_FAILED_EXIT_CODE, now(), "StartError", message)
    container_exit.publish_stopped(runtime, container)
