"""StopContainer: the stop signal, the grace period, then SIGKILL. Idempotent."""

import asyncio
import contextlib
import signal

from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri.errors import DeadlineExceeded, FailedPrecondition, NotFound
from cri.logs import log
from cri.runtime import Runtime
from cri.state import Container

# A killed process that the kernel can't end (stuck in I/O): the caller is told, and tries again.
_KILL_WAIT_SECONDS = 30.0


async def stop_container(runtime: Runtime, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
    container = runtime.store.containers.find(request.container_id)
    if container is not None:
        await stop(runtime, container, request.timeout)
    return cri.StopContainerResponse()


async def stop(runtime: Runtime, container: Container, timeout_seconds: float) -> None:
    async with container.lock:  # a start that is under way ends first
        running = container.state == cri.CONTAINER_RUNNING
    if not running:
        return
    if timeout_seconds > 0:
        await _kill(runtime, container, signal_number(container.record.stop_signal), everything=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await container.exited.wait()
                return
        log.info("container did not stop in time", container=container.id, seconds=timeout_seconds)
    await _kill(runtime, container, signal.SIGKILL, everything=True)
    try:
        async with asyncio.timeout(_KILL_WAIT_SECONDS):
            await container.exited.wait()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"container {container.id} was killed and still has not ended after {_KILL_WAIT_SECONDS:g} s"
        ) from error


async def _kill(runtime: Runtime, container: Container, number: int, *, everything: bool) -> None:
    request = api.tasks.KillRequest(container_id=container.id, signal=number, all=everything)
    # It may have ended by itself in the meantime: its exit is on the way.
    with contextlib.suppress(NotFound, FailedPrecondition):
        await runtime.containerd.tasks.Kill(request)


def signal_number(name: str) -> int:
    """The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or the CRI's `SIGRTMINPLUS3`; SIGTERM if it is none."""
    text = name.strip().upper().removeprefix("SIG").replace("PLUS", "+").replace("MINUS", "-")
    if text.isdigit():
        return int(text)
    for base, number in (("RTMIN", int(signal.SIGRTMIN)), ("RTMAX", int(signal.SIGRTMAX))):
        if text.startswith(base):
            offset = text.removeprefix(base)
            return number + int(offset) if offset.lstrip("+-").isdigit() else number
    aliases = {"CLD": "CHLD", "IOT": "ABRT", "POLL": "IO"}
    found = getattr(signal, f"SIG{aliases.get(text, text)}", signal.SIGTERM)
    return int(found)
