"""As much of D-Bus as talking to systemd-logind takes: calls with simple arguments, signals, passed descriptors.

Wire format and authentication are those of the D-Bus specification 0.42. Types: `s o g` (text), `b u h t` (numbers,
an `h` being an index among the message's descriptors) and `v` (a variant of these,
written as a pair of type and value). Little-endian only, as written;
what the other side sends is read in its own order.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

SYSTEM_BUS = "/run/dbus/system_bus_socket"
CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_MESSAGE_BYTES_MAX = 1 << 20  # what we talk about is small; the specification allows 128 MiB
_FDS_MAX = 16
_REPLY_SECONDS = 25.0  # as the reference client waits
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE, _UNIX_FDS = range(1, 10)
_FIELD_TYPES = {
    _PATH: "o", _INTERFACE: "s", _MEMBER: "s", _ERROR_NAME: "s", _REPLY_SERIAL: "u", _DESTINATION: "s", _SENDER: "s",
    _SIGNATURE: "g", _UNIX_FDS: "u",
}  # fmt: skip
_NUMBERS = {"u": ("I", 4), "b": ("I", 4), "h": ("I", 4), "t": ("Q", 8), "y": ("B", 1), "i": ("i", 4)}


class DBusError(Exception):
    """The bus or the other side said no, or went away."""


@dataclass(slots=True)
class Message:
    """One message. `fields` by the specification's codes; `body` as plain values."""

    kind: int
    serial: int = 0
    fields: dict[int, Any] = field(default_factory=dict)
    body: list[Any] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)

    @property
    def member(self) -> str:
        return str(self.fields.get(_MEMBER, ""))

    @property
    def interface(self) -> str:
        return str(self.fields.get(_INTERFACE, ""))

    @property
    def sender(self) -> str:
        return str(self.fields.get(_SENDER, ""))


class _Writer:
    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def put(self, kind: str, value: Any) -> None:
        if kind in _NUMBERS:
            code, size = _NUMBERS[kind]
            self.align(size)
            self.data += struct.pack("<" + code, int(value))
        elif kind in "so":
            raw = str(value).encode()
            self.put("u", len(raw))
            self.data += raw + b"\0"
        elif kind == "v":
            inner, content = value
            self.put("g", inner)
            self.put(inner, content)
        elif kind == "g":
            raw = str(value).encode()
            self.data += bytes([len(raw)]) + raw + b"\0"
        else:
            raise ValueError(f"D-Bus type {kind!r} is not supported here")


class _Reader:
    def __init__(self, data: bytes, order: str, at: int = 0) -> None:
        self.data, self.order, self.at = data, order, at

    def align(self, size: int) -> None:
        self.at += -self.at % size

    def take(self, kind: str) -> Any:
        if kind in _NUMBERS:
            code, size = _NUMBERS[kind]
            self.align(size)
            (value,) = struct.unpack_from(self.order + code, self.data, self.at)
            self.at += size
            return bool(value) if kind == "b" else value
        if kind == "v":
            return self.take(self.take("g"))
        length = self.take("u") if kind in "so" else self.take("y")
        raw = self.data[self.at : self.at + length]
        self.at += length + 1
        return raw.decode()


def encode(message: Message, signature: str = "") -> bytes:
    """The message as bytes. `signature` is of the body, one letter a value."""
    body = _Writer()
    for kind, value in zip(signature, message.body, strict=True):
        body.put(kind, value)
    fields = dict(message.fields)
    if signature:
        fields[_SIGNATURE] = signature
    if message.fds:
        fields[_UNIX_FDS] = len(message.fds)
    array = _Writer()
    for code, value in fields.items():
        array.align(8)
        array.put("y", code)
        array.put("g", _FIELD_TYPES[code])
        array.put(_FIELD_TYPES[code], value)
    head = struct.pack("<cBBBIII", b"l", message.kind, 0, 1, len(body.data), message.serial, len(array.data))
    whole = bytearray(head) + array.data
    whole += bytes(-len(whole) % 8)
    return bytes(whole + body.data)


def whole_size(data: bytes) -> int | None:
    """How many bytes the message that begins here has; None while that is not known. Raises DBusError."""
    if len(data) < 16:
        return None
    order = {ord("l"): "<", ord("B"): ">"}.get(data[0])
    if order is None:
        raise DBusError(f"byte order {data[0]} is none of D-Bus's")
    body, _, fields = struct.unpack_from(order + "III", data, 4)
    total = 16 + fields + -fields % 8 + body
    if total > _MESSAGE_BYTES_MAX:
        raise DBusError(f"a message of {total} bytes is larger than {_MESSAGE_BYTES_MAX}")
    return int(total)


def decode(data: bytes) -> Message:
    """A whole message. Raises DBusError for one that is not."""
    order = "<" if data[0] == ord("l") else ">"
    try:
        _, serial, length = struct.unpack_from(order + "III", data, 4)
        message = Message(data[1], serial)
        reader = _Reader(data, order, 16)
        while reader.at < 16 + length:
            reader.align(8)
            code = reader.take("y")
            message.fields[code] = reader.take("v")
        reader.align(8)
        body = _Reader(data[reader.at :], order)
        for kind in message.fields.get(_SIGNATURE, ""):
            message.body.append(body.take(kind))
    except (struct.error, IndexError, ValueError, UnicodeDecodeError, RecursionError) as error:
        raise DBusError(f"a message that can't be read: {error}") from error
    return message


class Bus:
    """A connection to a message bus. `on_message` is told of signals and calls; it must not block."""

    def __init__(self, on_message: Callable[[Message], None] = lambda _message: None) -> None:
        self._on_message = on_message
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._serial = 0
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self.closed = asyncio.Event()

    async def connect(self, path: str = SYSTEM_BUS) -> None:
        """Connect, authenticate as this process's user, say hello. Raises DBusError."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                await loop.sock_connect(sock, path)
                user = str(os.geteuid()).encode().hex()
                for line, wanted in ((f"\0AUTH EXTERNAL {user}", "OK"), ("NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD")):
                    await loop.sock_sendall(sock, f"{line}\r\n".encode())
                    answer = (await loop.sock_recv(sock, 512)).decode(errors="replace")
                    if not answer.startswith(wanted):
                        raise DBusError(f"{path}: {line.split()[0].strip(chr(0))} was answered {answer.strip()!r}")
                await loop.sock_sendall(sock, b"BEGIN\r\n")
        except (OSError, TimeoutError) as error:
            sock.close()
            raise DBusError(f"{path}: {error or 'no answer'}") from error
        except DBusError:
            sock.close()
            raise
        self._socket = sock
        loop.add_reader(sock.fileno(), self._readable)
        bus = "org.freedesktop.DBus"
        await self.call(bus, "/org/freedesktop/DBus", bus, "Hello")

    async def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> Message:
        """A method's return. Raises DBusError with the other side's words."""
        self._serial += 1
        fields = {_PATH: path, _INTERFACE: interface, _MEMBER: member, _DESTINATION: destination}
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[self._serial] = reply
        try:
            self.send(Message(CALL, self._serial, fields, list(body)), signature)
            async with asyncio.timeout(_REPLY_SECONDS):
                answer = await reply
        except TimeoutError as error:
            raise DBusError(f"{destination} {member}: no answer within {_REPLY_SECONDS:.0f} s") from error
        finally:
            self._replies.pop(self._serial, None)
        if answer.kind == ERROR:
            raise DBusError(f"{member}: {answer.fields.get(_ERROR_NAME, '')}: {' '.join(map(str, answer.body))}")
        return answer

    def send(self, message: Message, signature: str = "") -> None:
        """Send a message as it is. Raises DBusError."""
        if self._socket is None:
            raise DBusError("not connected")
        if not message.serial:
            self._serial += 1
            message.serial = self._serial
        try:
            socket.send_fds(self._socket, [encode(message, signature)], message.fds)
        except OSError as error:
            self.close()
            raise DBusError(f"the bus is gone: {error}") from error

    def answer(self, call: Message, signature: str = "", body: Sequence[Any] = (), fds: Sequence[int] = ()) -> None:
        """Answer a call that somebody made to us."""
        fields = {_REPLY_SERIAL: call.serial, _DESTINATION: call.sender}
        self.send(Message(RETURN, 0, fields, list(body), list(fds)), signature)

    def signal(self, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()) -> None:
        """Tell everybody who listens."""
        self.send(Message(SIGNAL, 0, {_PATH: path, _INTERFACE: interface, _MEMBER: member}, list(body)), signature)

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, 65536, _FDS_MAX)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds += fds
        if not data:
            self.close()
            return
        self._buffer += data
        try:
            while (size := whole_size(self._buffer)) is not None and len(self._buffer) >= size:
                raw = bytes(self._buffer[:size])
                del self._buffer[:size]
                self._take(decode(raw))
        except DBusError:
            self.close()

    def _take(self, message: Message) -> None:
        count = int(message.fields.get(_UNIX_FDS, 0))
        message.fds, self._fds = self._fds[:count], self._fds[count:]
        reply = self._replies.get(message.fields.get(_REPLY_SERIAL, -1)) if message.kind in (RETURN, ERROR) else None
        if reply is not None and not reply.done():
            reply.set_result(message)
            return
        if message.kind in (SIGNAL, CALL):
            self._on_message(message)
        for fd in message.fds:
            os.close(fd)

    def close(self) -> None:
        """Hang up; who waits for an answer is told."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(DBusError("the bus hung up"))
        self.closed.set()
