"""ExecSync: runs a command to its end and answers with its output."""

import asyncio

from cri_api.v1 import api_pb2 as cri

from cri.errors import DeadlineExceeded
from cri.exec_process import executed
from cri.runtime import Runtime

# What a command writes beyond this is dropped: a probe must not be able to fill our memory.
OUTPUT_BYTES_MAX = 16 * 1024 * 1024
# A background child that inherited the streams keeps them open; nobody waits for it.
_DRAIN_SECONDS = 1.0


class _Bounded:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes | None) -> None:
        if chunk and self._size < self._limit:
            part = chunk[: self._limit - self._size]
            self._parts.append(part)
            self._size += len(part)

    @property
    def value(self) -> bytes:
        return b"".join(self._parts)


async def exec_sync(runtime: Runtime, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
    container = runtime.store.containers.get(request.container_id)
    outputs = {"stdout": _Bounded(OUTPUT_BYTES_MAX), "stderr": _Bounded(OUTPUT_BYTES_MAX)}
    async with executed(runtime, container, request.cmd) as process:
        for name, stream in process.io.outputs.items():
            stream.listeners.add(outputs[name].feed)
        await process.start()
        try:
            async with asyncio.timeout(request.timeout if request.timeout > 0 else None):
                code = await asyncio.shield(process.exit_code)
        except TimeoutError as error:
            command = " ".join(request.cmd)[:200]
            raise DeadlineExceeded(f"command {command!r} timed out after {request.timeout} s") from error
        await process.io.wait_ended(_DRAIN_SECONDS)
    return cri.ExecSyncResponse(stdout=outputs["stdout"].value, stderr=outputs["stderr"].value, exit_code=code)
