"""A kubelet's gRPC service that runs commands on this machine: the far end of logs, exec, attach and port-forward."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc

from machinery.api import errors
from machinery.component.grpc_errors import abort
from machinery.component.tls import TlsFiles, server_credentials
from protos.cutaway.v1 import kubelet_pb2, kubelet_pb2_grpc, stream_pb2


class EchoKubelet(kubelet_pb2_grpc.KubeletServicer):
    """exec runs the command as a process here, attach echoes, a forwarded port is one of this machine's."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.uids: list[str] = []

    async def Logs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Three lines, and with follow two more a little later."""
        if request.previous:
            await abort(context, errors.BadRequest(f'previous terminated container "{request.container}" not found'))
        lines = [f"{request.container} line {number}\n" for number in range(3)]
        for line in lines[-request.tail_lines :] if request.HasField("tail_lines") else lines:
            yield stream_pb2.Chunk(data=line.encode())
        if request.follow:
            for number in (3, 4):
                await asyncio.sleep(0.05)
                yield stream_pb2.Chunk(data=f"{request.container} line {number}\n".encode())

    async def Stats(self, request: Any, context: Any) -> Any:
        """A tenth of a core and 64 MiB for everything."""
        usage = kubelet_pb2.Usage(cpu_usage_nanocores=100_000_000, memory_working_set_bytes=64 * 1024 * 1024)
        containers = [kubelet_pb2.ContainerStats(name="main", usage=usage)]
        pods = [kubelet_pb2.PodStats(uid=uid, usage=usage, containers=containers) for uid in self.uids]
        return kubelet_pb2.StatsResponse(node="n1", usage=usage, pods=pods)

    async def Exec(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Run the command."""
        first = await anext(requests)
        process = await asyncio.create_subprocess_exec(
            *first.start.command,
            stdin=asyncio.subprocess.PIPE if first.start.stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        outputs: asyncio.Queue[Any] = asyncio.Queue()

        async def copy(stream: Any, field: str) -> None:
            while data := await stream.read(32768):
                await outputs.put(stream_pb2.ExecOutput(**{field: data}))
            await outputs.put(None)

        async def feed() -> None:
            async for frame in requests:
                if frame.WhichOneof("frame") == "stdin" and process.stdin is not None:
                    process.stdin.write(frame.stdin)
                    await process.stdin.drain()
                elif frame.WhichOneof("frame") == "stdin_closed" and process.stdin is not None:
                    process.stdin.close()
                elif frame.WhichOneof("frame") == "resize":
                    self.sizes.append((frame.resize.width, frame.resize.height))

        feeder = asyncio.create_task(feed())
        copiers = [
            asyncio.create_task(copy(process.stdout, "stdout")),
            asyncio.create_task(copy(process.stderr, "stderr")),
        ]
        open_streams = 2
        while open_streams:
            output = await outputs.get()
            if output is None:
                open_streams -= 1
            else:
                yield output
        await asyncio.gather(*copiers)
        code = await process.wait()
        feeder.cancel()
        yield stream_pb2.ExecOutput(status=_status(code))

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Say hello, then say back what is said."""
        yield stream_pb2.ExecOutput(stdout=b"attached\n")
        async for frame in requests:
            if frame.WhichOneof("frame") == "stdin":
                yield stream_pb2.ExecOutput(stdout=frame.stdin.upper())
            elif frame.WhichOneof("frame") == "stdin_closed":
                break
        yield stream_pb2.ExecOutput(status=_status(0))

    async def PortForward(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Connect to ports of this machine."""
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        writers: dict[int, asyncio.StreamWriter] = {}
        tasks: list[asyncio.Task[None]] = []

        async def pump(connection: int, reader: asyncio.StreamReader) -> None:
            while data := await reader.read(32768):
                await outputs.put(stream_pb2.PortForwardFrame(connection=connection, data=data))
            await outputs.put(stream_pb2.PortForwardFrame(connection=connection, closed=True))

        async def read() -> None:
            async for frame in requests:
                kind = frame.WhichOneof("frame")
                if kind == "open_port":
                    try:
                        reader, writer = await asyncio.open_connection("127.0.0.1", frame.open_port)
                    except OSError as error:
                        text = f"connection to port {frame.open_port} failed: {error}"
                        await outputs.put(stream_pb2.PortForwardFrame(connection=frame.connection, error=text))
                        continue
                    writers[frame.connection] = writer
                    tasks.append(asyncio.create_task(pump(frame.connection, reader)))
                elif kind == "data" and frame.connection in writers:
                    writers[frame.connection].write(frame.data)
                elif kind == "closed" and frame.connection in writers:
                    writers[frame.connection].write_eof()
            await outputs.put(None)

        tasks.append(asyncio.create_task(read()))
        while (frame := await outputs.get()) is not None:
            yield frame


def _status(code: int) -> bytes:
    if code == 0:
        return b'{"metadata":{},"status":"Success"}'
    cause = {"reason": "ExitCode", "message": str(code)}
    status = {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "details": {"causes": [cause]},
        "code": 500,
    }
    return json.dumps(status).encode()


async def start(files: TlsFiles) -> tuple[grpc.aio.Server, int, EchoKubelet]:
    """A running server with that certificate, its port, and its service."""
    server = grpc.aio.server()
    service = EchoKubelet()
    kubelet_pb2_grpc.add_KubeletServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    return server, port, service
