"""What happens when a container's process has ended: its status is settled, its task deleted, the event published."""

import asyncio
import contextlib

from cri_api.v1 import api_pb2 as cri

from cri import cgroups, oci_parts, status
from cri import containerd_api as api
from cri.errors import CriError, NotFound
from cri.logs import log
from cri.runtime import Runtime
from cri.state import Container, now

# Exit codes that a wait status has no room for.
UNKNOWN_EXIT_CODE = 255
START_FAILED_EXIT_CODE = 128
_SIGKILLED = 128 + 9


async def container_exited(runtime: Runtime, container: Container, exit_code: int, exited_at: int) -> None:
    """Settles an exit; a second report of the same exit changes nothing."""
    async with container.lock:
        if container.state == cri.CONTAINER_RUNNING:
            await settle_running(runtime, container, exit_code, exited_at)
        elif container.state == cri.CONTAINER_EXITED:
            # Its start was taken for failed (containerd went away in between), and then it ran after all.
            await delete_ended(runtime, container)


async def settle_running(runtime: Runtime, container: Container, exit_code: int, exited_at: int) -> None:
    """The end of a running container: the rest of its output, its status, the event, its task. Holds its lock."""
    if container.io:
        await container.io.wait_ended()
        container.io.close()
    if exit_code == _SIGKILLED and not container.status.oom_killed:
        container.status.oom_killed = await asyncio.to_thread(_ran_out_of_memory, runtime, container)
    settle(container, exit_code, exited_at)
    publish_stopped(runtime, container)
    await delete_ended(runtime, container)
    if container.io:
        container.io.remove()
        container.io = None


def _ran_out_of_memory(runtime: Runtime, container: Container) -> bool:
    """Whether the kernel killed in the container's cgroup, which is there until the task is deleted.

    containerd's own word for it, an event, may come after the one of the exit or not at all (after a restart).
    """
    sandbox = runtime.store.sandboxes.find(container.sandbox_id)
    if sandbox is None:
        return False
    path = oci_parts.cgroup_directory(sandbox.config.linux.cgroup_parent, container.id, runtime.config)
    return bool(cgroups.oom_kills_below(cgroups.paths_below(path)))


async def delete_ended(runtime: Runtime, container: Container) -> None:
    """Deletes the task of an ended container; a failure is logged and made good later."""
    try:
        await delete_task(runtime, container)
    except CriError as error:
        # The task is deleted when containerd answers again (recovery) or with the container.
        log.warning("could not delete an ended task", container=container.id, error=str(error))


def settle(container: Container, exit_code: int, exited_at: int, reason: str = "", message: str = "") -> None:
    """Writes down how it ended. The reason is the kubelet's word for it."""
    state = container.status
    state.exit_code = exit_code
    state.finished_at = exited_at or now()
    state.message = message
    if state.oom_killed:
        state.reason = "OOMKilled"
    else:
        state.reason = reason or ("Completed" if exit_code == 0 else "Error")
    state.pid = 0
    container.save()
    container.exited.set()


async def delete_task(runtime: Runtime, container: Container) -> None:
    """Deletes containerd's task and with it the bundle and the mounted root; nothing if there is none."""
    sandbox = runtime.store.sandboxes.find(container.sandbox_id)
    async with sandbox.shim_lock if sandbox else contextlib.nullcontext():
        with contextlib.suppress(NotFound):
            await runtime.containerd.tasks.Delete(api.tasks.DeleteTaskRequest(container_id=container.id))


def publish_stopped(runtime: Runtime, container: Container) -> None:
    sandbox = runtime.store.sandboxes.find(container.sandbox_id)
    status.publish(runtime, cri.CONTAINER_STOPPED_EVENT, sandbox, container)
