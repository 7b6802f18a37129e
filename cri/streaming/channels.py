"""What a remote command needs of its client, whichever protocol carries it.

A session reads `events()` (input, its end, a new terminal size) and writes output by name. Exec and attach know
nothing of WebSocket or SPDY; each of those has one implementation here or in `spdy_channels`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from cri.streaming.websocket import ProtocolError, WebSocket

V5, V4, V1 = "v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"
WEBSOCKET_PROTOCOLS = (V5, V4, V1)

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
_NUMBERS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR}
# v5: the client says that it has closed a channel, whose number follows.
_CLOSE_SIGNAL = 255


class Input(msgspec.Struct, frozen=True):
    data: bytes


class InputEnd(msgspec.Struct, frozen=True):
    pass


class Resize(msgspec.Struct, frozen=True):
    width: int
    height: int


Event = Input | InputEnd | Resize


class Channels(Protocol):
    """One client of a remote command."""

    def events(self) -> AsyncIterator[Event]:
        """What the client sends, until it has gone."""
        ...

    async def write(self, name: str, data: bytes) -> None:
        """Output on `stdout` or `stderr`; waits while the client is slow."""
        ...

    async def finish(self, status: dict[str, Any]) -> None:
        """The command's end as a Status object, then the close."""
        ...


def parse_resize(data: bytes) -> Resize | None:
    """`{"Width":80,"Height":24}`; anything else is ignored, as a terminal ignores nonsense."""
    try:
        size = msgspec.json.decode(data)
        width, height = int(size.get("Width", 0)), int(size.get("Height", 0))
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        return None
    return Resize(width, height) if 0 < width < 65536 and 0 < height < 65536 else None


def success() -> dict[str, Any]:
    return {"metadata": {}, "status": "Success"}


def failure(message: str, exit_code: int | None = None) -> dict[str, Any]:
    """As upstream's kubelet words it; kubectl takes its own exit code from the cause."""
    status: dict[str, Any] = {"metadata": {}, "status": "Failure", "message": message}
    if exit_code is not None:
        status["reason"] = "NonZeroExitCode"
        status["details"] = {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]}
    else:
        status |= {"reason": "InternalError", "code": 500}
    return status


class WebSocketChannels:
    """Channels as the first byte of each binary message."""

    def __init__(self, socket: WebSocket, protocol: str) -> None:
        self._socket = socket
        self._protocol = protocol

    async def events(self) -> AsyncIterator[Event]:
        while True:
            try:
                message = await self._socket.receive()
            except ProtocolError as error:
                await self._socket.close(error.code, str(error))
                return
            except (ConnectionError, asyncio.IncompleteReadError):
                return
            if message is None:
                return
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel == STDIN and data:
                yield Input(data)
            elif channel == RESIZE:
                size = parse_resize(data)
                if size:
                    yield size
            elif channel == _CLOSE_SIGNAL and self._protocol == V5 and data[:1] == bytes([STDIN]):
                yield InputEnd()

    async def write(self, name: str, data: bytes) -> None:
        await self._socket.send(bytes([_NUMBERS[name]]) + data)

    async def finish(self, status: dict[str, Any]) -> None:
        if self._protocol in (V4, V5):
            await self._socket.send(bytes([ERROR]) + msgspec.json.encode(status))
        elif status["status"] != "Success":
            await self._socket.send(bytes([ERROR]) + str(status["message"]).encode())
        await self._socket.close()
