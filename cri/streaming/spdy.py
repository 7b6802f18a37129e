"""SPDY/3.1 framing, the server's side: what upstream's remote commands and port forwards speak beside WebSocket.

Frames, types and the header block are those of the SPDY protocol draft 3.1. As the implementations in use there do,
flow control is left to TCP: window updates are read over and none are sent. Every length is bounded.
"""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 0x01
_PROTOCOL_ERROR, _REFUSED = 1, 3

FRAME_BYTES_MAX = 1024 * 1024
_HEADER_BYTES_MAX = 64 * 1024
_STREAMS_MAX = 1000
# Chunks that wait for a stream's reader; then the connection is not read on.
_QUEUE_CHUNKS = 16
_DATA_BYTES = 32 * 1024

# The compression dictionary of SPDY 3: words, each after its length, then text. Both ends must have these bytes.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges "
    "age allow authorization cache-control connection content-base content-encoding content-language "
    "content-length content-location content-md5 content-range content-type date etag expect expires from host "
    "if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards "
    "pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200~OK version "
    "HTTP/1.1 url public set-cookie keep-alive origin "
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Au"
    "thoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidd"
    "en404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr Ma"
    "y Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,imag"
    "e/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicpri"
    "vatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = (word.replace("~", " ").encode() for word in _WORDS.split())
    return b"".join(struct.pack("!I", len(word)) + word for word in words) + _TEXT.encode()


DICTIONARY = _dictionary()


class SpdyError(Exception):
    """The peer broke the protocol or a bound; the connection ends."""


class Frame(msgspec.Struct, frozen=True):
    """A control frame's type and payload, or (type 0) a data frame's stream and bytes."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class HeaderCodec:
    """Header blocks of one connection: each direction is one zlib stream from its first block to its last."""

    def __init__(self) -> None:
        self._compress = zlib.compressobj(level=6, wbits=zlib.MAX_WBITS, zdict=DICTIONARY)
        self._decompress = zlib.decompressobj(zdict=DICTIONARY)

    def encode(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack("!I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += [struct.pack("!I", len(text)), text]
        return self._compress.compress(b"".join(parts)) + self._compress.flush(zlib.Z_SYNC_FLUSH)

    def decode(self, block: bytes) -> dict[str, str]:
        try:
            data = self._decompress.decompress(block, _HEADER_BYTES_MAX)
        except zlib.error as error:
            raise SpdyError(f"header block: {error}") from error
        if self._decompress.unconsumed_tail:
            raise SpdyError(f"a header block of more than {_HEADER_BYTES_MAX} bytes")
        return _parse_headers(data)


def _parse_headers(data: bytes) -> dict[str, str]:
    offset = 4
    result: dict[str, str] = {}

    def text() -> str:
        nonlocal offset
        (length,) = struct.unpack_from("!I", data, offset)
        value = data[offset + 4 : offset + 4 + length]
        if len(value) != length:
            raise SpdyError("a header block that ends too early")
        offset += 4 + length
        return value.decode("utf-8", "replace")

    try:
        (count,) = struct.unpack_from("!I", data)
        for _ in range(count):
            name = text()
            result[name.lower()] = text()
    except struct.error as error:
        raise SpdyError("a header block that ends too early") from error
    return result


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


def data_frame(stream: int, data: bytes, *, fin: bool = False) -> bytes:
    return struct.pack("!II", stream, (FLAG_FIN if fin else 0) << 24 | len(data)) + data


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    first, second = struct.unpack("!II", await reader.readexactly(8))
    length, flags = second & 0xFFFFFF, second >> 24
    if length > FRAME_BYTES_MAX:
        raise SpdyError(f"a frame of {length} bytes")
    payload = await reader.readexactly(length)
    if not first & 0x80000000:
        return Frame(0, flags, first, payload)
    if (first >> 16) & 0x7FFF != VERSION:
        raise SpdyError("a frame of another version")
    return Frame(first & 0xFFFF, flags, 0, payload)


class Stream:
    """One stream that the client has opened."""

    def __init__(self, connection: "Connection", number: int, headers: dict[str, str], *, ended: bool) -> None:
        self._connection = connection
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_CHUNKS)
        self._closed = False
        self.number = number
        self.headers = headers
        if ended:
            self._chunks.put_nowait(None)

    async def receive(self, chunk: bytes | None) -> None:
        """For the connection: what has arrived, None for the end."""
        await self._chunks.put(chunk)

    def cut(self) -> None:
        """The connection is gone: what was not read yet is dropped, so that the end finds room."""
        while self._chunks.full():
            self._chunks.get_nowait()
        self._chunks.put_nowait(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """What the client sends, to its end."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _DATA_BYTES):
            if not self._closed:
                await self._connection.send(data_frame(self.number, data[start : start + _DATA_BYTES]))

    async def close(self) -> None:
        """Ends our side of it."""
        if not self._closed:
            self._closed = True
            await self._connection.send(data_frame(self.number, b"", fin=True))

    def forget(self) -> None:
        """Both sides are done."""
        self._connection.streams.pop(self.number, None)


class Connection:
    """A client's connection. `run` reads it to its end; `on_stream` gets each new stream and must not block."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = HeaderCodec()
        self.streams: dict[int, Stream] = {}

    async def send(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()

    async def run(self, on_stream: Callable[[Stream], None]) -> None:
        """Raises SpdyError; returns when the client has gone."""
        try:
            while True:
                frame = await read_frame(self._reader)
                if frame.kind == GOAWAY:
                    return
                await self._handle(frame, on_stream)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            for stream in tuple(self.streams.values()):
                stream.cut()

    async def _handle(self, frame: Frame, on_stream: Callable[[Stream], None]) -> None:
        if frame.kind == 0:
            stream = self.streams.get(frame.stream)
            if stream and frame.payload:
                await stream.receive(frame.payload)
            if stream and frame.flags & FLAG_FIN:
                await stream.receive(None)
        elif frame.kind == SYN_STREAM:
            await self._open(frame, on_stream)
        elif frame.kind == RST_STREAM and len(frame.payload) >= 4:
            stream = self.streams.pop(struct.unpack_from("!I", frame.payload)[0] & 0x7FFFFFFF, None)
            if stream:
                await stream.receive(None)
        elif frame.kind == PING:
            await self.send(control(PING, frame.payload))
        elif frame.kind == HEADERS and len(frame.payload) >= 4:
            self._codec.decode(frame.payload[4:])  # unused, but the compression must be kept in step

    async def _open(self, frame: Frame, on_stream: Callable[[Stream], None]) -> None:
        if len(frame.payload) < 10:
            raise SpdyError("a SYN_STREAM that ends too early")
        number = struct.unpack_from("!I", frame.payload)[0] & 0x7FFFFFFF
        headers = self._codec.decode(frame.payload[10:])
        if number % 2 == 0 or number in self.streams:
            raise SpdyError(f"stream id {number}")
        if len(self.streams) >= _STREAMS_MAX:
            await self.send(control(RST_STREAM, struct.pack("!II", number, _REFUSED)))
            return
        stream = Stream(self, number, headers, ended=bool(frame.flags & FLAG_FIN))
        self.streams[number] = stream
        await self.send(control(SYN_REPLY, struct.pack("!I", number) + self._codec.encode({})))
        on_stream(stream)
