"""Exec and attach: frames of the Kubelet service on one side, the runtime's streaming server on the other.

The runtime speaks Kubernetes' remote-command protocol over WebSocket: the first byte of a message is the channel. v5
adds closing a channel; on v4 the end of stdin can't be told, so the session ends with the process only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from machinery.api import errors
from protos.cutaway.v1 import stream_pb2
from services.kubelet.websocket import WebSocket, WebSocketError

PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_SUCCESS = json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}).encode()


async def pump(url: str, frames: AsyncIterator[stream_pb2.ExecInput]) -> AsyncIterator[stream_pb2.ExecOutput]:
    """Carry a session until the process ends or the caller leaves."""
    try:
        socket = await WebSocket.connect(url, PROTOCOLS)
    except (WebSocketError, OSError) as error:
        raise errors.InternalError(f"the runtime's streaming server refused the session: {error}") from error
    upward = asyncio.ensure_future(_upward(socket, frames))
    status = b""
    try:
        while (message := await socket.receive()) is not None:
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel == _STDOUT and data:
                yield stream_pb2.ExecOutput(stdout=data)
            elif channel == _STDERR and data:
                yield stream_pb2.ExecOutput(stderr=data)
            elif channel == _ERROR and data:
                status += data
        yield stream_pb2.ExecOutput(status=status or _SUCCESS)
    finally:
        upward.cancel()
        await socket.close()


async def _upward(socket: WebSocket, frames: AsyncIterator[stream_pb2.ExecInput]) -> None:
    try:
        async for frame in frames:
            kind = frame.WhichOneof("frame")
            if kind == "stdin":
                await socket.send(bytes([_STDIN]) + frame.stdin)
            elif kind == "stdin_closed" and socket.protocol == PROTOCOLS[0]:
                await socket.send(bytes([_CLOSE, _STDIN]))
            elif kind == "resize":
                size = {"Width": frame.resize.width, "Height": frame.resize.height}
                await socket.send(bytes([_RESIZE]) + json.dumps(size).encode())
    except (ConnectionError, RuntimeError):
        return
