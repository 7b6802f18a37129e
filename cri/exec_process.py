"""A process executed in a running container: what ExecSync and Exec have in common."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri.container_io import ContainerIO
from cri.containerd_client import PROCESS_TYPE
from cri.errors import CriError, FailedPrecondition, InvalidArgument, NotFound
from cri.runtime import Runtime
from cri.state import Container


class ExecProcess:
    """One executed process with its streams; made by `executed`."""

    def __init__(self, runtime: Runtime, container: Container, io: ContainerIO) -> None:
        self._runtime = runtime
        self.container = container
        self.id = f"exec-{secrets.token_hex(8)}"
        self.io = io
        self.may_run = False
        self.exit_code: asyncio.Future[int] = runtime.exits.expect(container.id, self.id)

    async def create(self, process: dict[str, Any]) -> None:
        spec = api.well_known.Any(type_url=PROCESS_TYPE, value=msgspec.json.encode(process))
        request = api.tasks.ExecProcessRequest(
            container_id=self.container.id,
            exec_id=self.id,
            stdin=self.io.path("stdin"),
            stdout=self.io.path("stdout"),
            stderr=self.io.path("stderr"),
            terminal=self.io.tty,
            spec=spec,
        )
        await self._runtime.containerd.tasks.Exec(request)

    async def start(self) -> None:
        request = api.tasks.StartRequest(container_id=self.container.id, exec_id=self.id)
        # Unless containerd says that it has not, it may have started: also when we are cancelled meanwhile.
        self.may_run = True
        try:
            await self._runtime.containerd.tasks.Start(request)
        except CriError:
            self.may_run = False
            raise

    async def kill(self) -> None:
        request = api.tasks.KillRequest(container_id=self.container.id, exec_id=self.id, signal=9)
        with contextlib.suppress(CriError):
            await self._runtime.containerd.tasks.Kill(request)

    async def resize(self, width: int, height: int) -> None:
        request = api.tasks.ResizePtyRequest(
            container_id=self.container.id, exec_id=self.id, width=width, height=height
        )
        with contextlib.suppress(CriError):  # it may have ended
            await self._runtime.containerd.tasks.ResizePty(request)

    async def close_stdin(self) -> None:
        if self.io.stdin:
            self.io.stdin.close()
        request = api.tasks.CloseIORequest(container_id=self.container.id, exec_id=self.id, stdin=True)
        with contextlib.suppress(CriError):
            await self._runtime.containerd.tasks.CloseIO(request)


async def _process(runtime: Runtime, container: Container, command: Sequence[str], tty: bool) -> dict[str, Any]:
    """The container's own process with another command: the same user, environment, capabilities and directory."""
    answer = await runtime.containerd.containers.Get(api.containers.GetContainerRequest(id=container.id))
    process: dict[str, Any] = msgspec.json.decode(answer.container.spec.value)["process"]
    process |= {"args": list(command), "terminal": tty}
    if tty and not any(entry.startswith("TERM=") for entry in process.get("env", [])):
        process["env"] = [*process.get("env", []), "TERM=xterm"]
    return process


@contextlib.asynccontextmanager
async def executed(
    runtime: Runtime, container: Container, command: Sequence[str], *, tty: bool = False, stdin: bool = False
) -> AsyncIterator[ExecProcess]:
    """A created process whose streams are open; the caller listens, then starts it.

    Whatever happens, at the end the process is dead, deleted, and its fifos are gone.
    """
    if not command:
        raise InvalidArgument("cmd: an empty command")
    if container.state != cri.CONTAINER_RUNNING:
        name = cri.ContainerState.Name(container.state)
        raise FailedPrecondition(f"container {container.id} is in state {name}, not running")
    spec = await _process(runtime, container, command, tty)
    io = ContainerIO(runtime.state / "io" / f"{container.id}.{secrets.token_hex(6)}", tty=tty, stdin=stdin)
    process = ExecProcess(runtime, container, io)
    try:
        io.create()
        io.open()
        await process.create(spec)
        yield process
    finally:
        await asyncio.shield(_end(runtime, process))


async def _end(runtime: Runtime, process: ExecProcess) -> None:
    if process.may_run and not process.exit_code.done():
        await process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.shield(process.exit_code)
    runtime.exits.forget(process.container.id, process.id)
    process.io.remove()
    request = api.tasks.DeleteProcessRequest(container_id=process.container.id, exec_id=process.id)
    with contextlib.suppress(NotFound, CriError):
        await runtime.containerd.tasks.DeleteProcess(request)
