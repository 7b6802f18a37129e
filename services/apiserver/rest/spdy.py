"""As much of SPDY/3.1 as `kubectl port-forward` and upstream's kubelets speak: streams, data, ping, reset
(draft-mbelshe-httpbis-spdy-00, version 3).

    control frame   1|version:15 | type:16 | flags:8 | length:24 | …
    data frame      0|stream:31            | flags:8 | length:24 | bytes

Names and values of headers are compressed with zlib and one dictionary that the specification gives; one compression
context lives as long as the connection. Pure bytes in, frames out: no I/O here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 0x01
FRAME_BYTES_MAX = 1 << 22
HEADER_BYTES_MAX = 64 * 1024
_VERSION = 3

_DICTIONARY_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_DICTIONARY_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [word.replace("_", " ").encode() for word in _DICTIONARY_WORDS.split()]
    return b"".join(struct.pack("!I", len(word)) + word for word in words) + _DICTIONARY_TAIL.encode()


DICTIONARY = _dictionary()


class ProtocolError(Exception):
    """The peer does not speak SPDY/3.1, or says something that is not allowed."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream; `fin`: the last ones."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer gave up a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer is about to close the connection."""


Frame = StreamOpened | Data | Reset | Ping | GoAway


class Codec:
    """One connection's framing. Feed bytes, get frames; the encoding functions give bytes to send."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from("!II", self._buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if not first & 0x80000000:
                yield Data(first, payload, bool(flags & FLAG_FIN))
                continue
            if (first >> 16) & 0x7FFF != _VERSION:
                raise ProtocolError("not SPDY version 3")
            frame = self._control(first & 0xFFFF, flags, payload)
            if frame is not None:
                yield frame

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        try:
            if kind == SYN_STREAM:
                (stream,) = struct.unpack_from("!I", payload)
                return StreamOpened(stream & 0x7FFFFFFF, self._headers(payload[10:]), bool(flags & FLAG_FIN))
            if kind in (SYN_REPLY, HEADERS):
                # The compression context is shared: a block that nobody needs still has to be read.
                self._headers(payload[4:])
                return None
            if kind == RST_STREAM:
                return Reset(struct.unpack_from("!I", payload)[0] & 0x7FFFFFFF)
            if kind == PING:
                return Ping(struct.unpack_from("!I", payload)[0])
            if kind == GOAWAY:
                return GoAway()
        except struct.error as error:
            raise ProtocolError("a frame is too short") from error
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._inflate.decompress(block, HEADER_BYTES_MAX)
        except zlib.error as error:
            raise ProtocolError(f"headers can't be decompressed: {error}") from error
        if self._inflate.unconsumed_tail:
            raise ProtocolError("headers are too large")
        headers: dict[str, str] = {}
        try:
            (count,) = struct.unpack_from("!I", raw)
            position = 4
            for _ in range(min(count, 256)):
                name, position = _counted(raw, position)
                value, position = _counted(raw, position)
                headers[name.lower()] = value
        except struct.error as error:
            raise ProtocolError("a header block is cut off") from error
        return headers

    # -- to send --

    def syn(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """Open a stream. Names are in lower case; clients' streams have odd numbers."""
        return _control_frame(SYN_STREAM, 0, struct.pack("!IIH", stream, 0, 0) + self._block(headers))

    def reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Accept a stream."""
        return _control_frame(SYN_REPLY, 0, struct.pack("!I", stream) + self._block(headers))

    def _block(self, headers: Mapping[str, str] | None) -> bytes:
        parts = [struct.pack("!I", len(headers or {}))]
        for name, value in (headers or {}).items():
            for text in (name, value):
                encoded = text.encode()
                parts.append(struct.pack("!I", len(encoded)) + encoded)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Bytes on a stream."""
        return struct.pack("!II", stream, (FLAG_FIN if fin else 0) << 24 | len(data)) + data

    @staticmethod
    def reset(stream: int, code: int = 5) -> bytes:
        """Give up a stream (5: cancelled)."""
        return _control_frame(RST_STREAM, 0, struct.pack("!II", stream, code))

    @staticmethod
    def pong(number: int) -> bytes:
        """Answer a ping."""
        return _control_frame(PING, 0, struct.pack("!I", number))


def _counted(raw: bytes, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("!I", raw, position)
    end = position + 4 + length
    if end > len(raw):
        raise ProtocolError("a header block is cut off")
    return raw[position + 4 : end].decode("utf-8", "replace"), end


def _control_frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!HHI", 0x8000 | _VERSION, kind, flags << 24 | len(payload)) + payload
