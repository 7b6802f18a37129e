"""PortForward: connections to ports of a pod, made inside its network namespace.

A socket belongs to the namespace in which it was made. It is made and connected by a thread inside the pod's, and
used from the event loop like any other.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from cri import kernel
from cri.errors import CriError, FailedPrecondition, InvalidArgument, Unavailable
from cri.runtime import Runtime
from cri.streaming.websocket import ProtocolError, WebSocket

WEBSOCKET_PROTOCOLS = ("v4.channel.k8s.io", "portforward.k8s.io")
_CHUNK_BYTES = 32 * 1024
_CONNECT_SECONDS = 10.0


async def connect(runtime: Runtime, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to `localhost:port` as the pod sees it; raises CriError."""
    sandbox = runtime.store.sandboxes.get(sandbox_id)
    if not sandbox.ready:
        raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
    if not 0 < port < 65536:
        raise InvalidArgument(f"port {port} is not in 1-65535")
    try:
        sock = await asyncio.to_thread(_dial, sandbox.netns, port)
    except OSError as error:
        raise Unavailable(f"port {port} of pod {sandbox.config.metadata.name}: {error.strerror or error}") from error
    return await asyncio.open_connection(sock=sock)


def _dial(netns: Path | None, port: int) -> socket.socket:
    def work() -> socket.socket:
        if netns is not None:
            kernel.setns(str(netns), kernel.CLONE_NEWNET)
        failure: OSError | None = None
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            except OSError as error:  # a kernel without IPv6
                failure = failure or error
                continue
            try:
                sock.settimeout(_CONNECT_SECONDS)
                sock.connect((host, port))
                sock.setblocking(False)
                return sock
            except OSError as error:
                sock.close()
                failure = failure or error
        raise failure or OSError("no address family")

    return kernel.in_new_thread(work)


async def copy(reader: asyncio.StreamReader, write: Callable[[bytes], Awaitable[None]]) -> None:
    """Everything from a reader to its end."""
    while chunk := await reader.read(_CHUNK_BYTES):
        await write(chunk)


async def run_websocket(runtime: Runtime, request: cri.PortForwardRequest, ws: WebSocket) -> None:
    """One connection for each asked port: channel 2n carries its data, 2n+1 its error.

    Each channel begins with the port as two bytes, little-endian (the WebSocket form of the kubelet's port forward).
    """
    ports = list(request.port)
    writers: dict[int, asyncio.StreamWriter] = {}
    copies: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for number, port in enumerate(ports):
                for channel in (2 * number, 2 * number + 1):
                    await ws.send(bytes([channel]) + struct.pack("<H", port))
                try:
                    reader, writers[number] = await connect(runtime, request.pod_sandbox_id, port)
                except CriError as error:
                    await ws.send(bytes([2 * number + 1]) + str(error).encode())
                    continue
                copies.append(tasks.create_task(_to_client(reader, ws, 2 * number), name=f"port {port}"))
            if not copies:
                await ws.close()
                return
            closer = tasks.create_task(_close_when_done(copies, ws), name="port forward close")
            await _from_client(ws, writers)
            for task in (*copies, closer):
                task.cancel()
    finally:
        for writer in writers.values():
            writer.close()


async def _to_client(reader: asyncio.StreamReader, ws: WebSocket, channel: int) -> None:
    with contextlib.suppress(ConnectionError):
        await copy(reader, lambda data: ws.send(bytes([channel]) + data))


async def _close_when_done(copies: list["asyncio.Task[None]"], ws: WebSocket) -> None:
    await asyncio.gather(*copies, return_exceptions=True)
    with contextlib.suppress(ConnectionError):
        await ws.close()


async def _from_client(ws: WebSocket, writers: dict[int, asyncio.StreamWriter]) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ProtocolError):
        while (message := await ws.receive()) is not None:
            writer = writers.get(message[0] // 2) if message and message[0] % 2 == 0 else None
            if writer and len(message) > 1:
                writer.write(message[1:])
                await writer.drain()
