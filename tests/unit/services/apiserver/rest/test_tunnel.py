"""Port-forward sessions: SPDY from the client, numbered connections to the kubelet."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator

import pytest

from protos.cutaway.v1 import stream_pb2
from services.apiserver.rest import spdy
from services.apiserver.rest.tunnel import PortForwardSession


class Client:
    """A client's side of SPDY, written against the specification."""

    def __init__(self) -> None:
        self.deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
        self.inflate = zlib.decompressobj(zdict=spdy.DICTIONARY)

    def open(self, stream: int, **headers: str) -> bytes:
        block = struct.pack("!I", len(headers))
        for name, value in headers.items():
            block += struct.pack("!I", len(name)) + name.encode() + struct.pack("!I", len(value)) + value.encode()
        packed = self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        payload = struct.pack("!IIH", stream, 0, 0) + packed
        return struct.pack("!HHI", 0x8003, spdy.SYN_STREAM, len(payload)) + payload


async def take(frames: AsyncIterator[stream_pb2.PortForwardFrame], count: int) -> list[stream_pb2.PortForwardFrame]:
    return [await anext(frames) for _ in range(count)]


def a_session() -> tuple[PortForwardSession, list[bytes]]:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    return PortForwardSession(stream_pb2.PortForwardStart(namespace="a", pod="web"), send), sent


def test_the_dictionary_is_the_specifications() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


async def test_a_connection_goes_there_and_back() -> None:
    session, sent = a_session()
    client, frames = Client(), session.frames()
    data = client.open(1, streamtype="error", port="80", requestid="0")
    data += client.open(3, streamtype="data", port="80", requestid="0")
    data += spdy.Codec.data(3, b"GET /") + spdy.Codec.data(3, b"", fin=True)
    # Bytes come as the network cuts them.
    for begin in range(0, len(data), 7):
        await session.received(data[begin : begin + 7])
    start, opened, request, closed = await take(frames, 4)
    assert start.start.pod == "web"
    assert (opened.connection, opened.open_port) == (1, 80)
    assert (request.connection, request.data) == (1, b"GET /")
    assert closed.closed
    assert [struct.unpack_from("!H", frame, 2)[0] for frame in sent] == [spdy.SYN_REPLY, spdy.SYN_REPLY]
    sent.clear()
    await session.forward(stream_pb2.PortForwardFrame(connection=1, data=b"200 OK"))
    await session.forward(stream_pb2.PortForwardFrame(connection=1, closed=True))
    frames_back = list(spdy.Codec().feed(b"".join(sent)))
    assert spdy.Data(3, b"200 OK", fin=False) in frames_back
    assert spdy.Data(1, b"", fin=True) in frames_back
    assert spdy.Data(3, b"", fin=True) in frames_back
    assert not session._pairs
    await frames.aclose()


async def test_a_failed_connection_says_why_on_the_error_stream() -> None:
    session, sent = a_session()
    client, frames = Client(), session.frames()
    await session.received(client.open(1, streamtype="error", port="81", requestid="7"))
    await session.received(client.open(3, streamtype="data", port="81", requestid="7"))
    await take(frames, 2)
    sent.clear()
    await session.forward(stream_pb2.PortForwardFrame(connection=1, error="connection refused"))
    assert spdy.Data(1, b"connection refused", fin=True) in list(spdy.Codec().feed(b"".join(sent)))
    await frames.aclose()


async def test_a_ping_comes_back_and_a_bad_port_is_reset() -> None:
    session, sent = a_session()
    client = Client()
    await session.received(struct.pack("!HHII", 0x8003, spdy.PING, 4, 77))
    assert list(spdy.Codec().feed(sent.pop())) == [spdy.Ping(77)]
    await session.received(client.open(1, streamtype="data", port="0", requestid="0"))
    assert list(spdy.Codec().feed(sent.pop())) == [spdy.Reset(1)]


async def test_more_streams_under_one_id_open_nothing() -> None:
    session, sent = a_session()
    client, frames = Client(), session.frames()
    await session.received(client.open(1, streamtype="data", port="80", requestid="0"))
    await session.received(client.open(3, streamtype="error", port="80", requestid="0"))
    for stream, kind in ((5, "data"), (7, "error")):
        await session.received(client.open(stream, streamtype=kind, port="80", requestid="0"))
        assert list(spdy.Codec().feed(sent.pop())) == [spdy.Reset(stream)]
    await take(frames, 2)
    assert session._outgoing.empty()
    await frames.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02\x00\x01\x00\x00\x00\x00",
        b"\x80\x03\x00\x01\x00\x00\x00\x02\x00\x00",
        b"\x80\x03\x00\x01\x00\xff\xff\xff",
        b"\x80\x03\x00\x01\x00\x00\x00\x0e" + b"\x00" * 10 + b"zzzz",
    ],
)
async def test_nonsense_is_a_protocol_error(data: bytes) -> None:
    session, _ = a_session()
    with pytest.raises(spdy.ProtocolError):
        await session.received(data)
