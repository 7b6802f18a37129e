"""WebSocket and SPDY framing, HTTP heads, tokens, channels."""

import asyncio
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri.errors import ResourceExhausted
from cri.streaming import channels, spdy, websocket
from cri.streaming.http import BadRequest, parse_head
from cri.streaming.requests import Waiting


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


class Writer:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        return


def frame(data: bytes, opcode: int = 2, *, final: bool = True) -> bytes:
    mask = b"\x01\x02\x03\x04"
    size = struct.pack("!B", 0x80 | len(data)) if len(data) < 126 else struct.pack("!BH", 0x80 | 126, len(data))
    return bytes([(0x80 if final else 0) | opcode]) + size + mask + websocket.unmask(data, mask)


async def test_messages_are_put_together_and_pings_answered() -> None:
    writer = Writer()
    data = frame(b"ab", final=False) + frame(b"ping", 9) + frame(b"c" * 300, 0) + frame(b"", 8)
    ws = websocket.WebSocket(reader_of(data), writer)  # type: ignore[arg-type]
    assert await ws.receive() == b"ab" + b"c" * 300
    assert writer.data == b"\x8a\x04ping"
    assert await ws.receive() is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x01x",
        b"\xc2\x81\x00\x00\x00\x00x",
        frame(b"x", 0),
        b"\x82\xff" + struct.pack("!Q", 2**40) + b"\x00\x00\x00\x00",
    ],
    ids=["unmasked", "extension", "lone-continuation", "huge"],
)
async def test_a_broken_frame_ends_the_session(data: bytes) -> None:
    ws = websocket.WebSocket(reader_of(data), Writer())  # type: ignore[arg-type]
    with pytest.raises(websocket.ProtocolError):
        await ws.receive()


@given(st.binary(max_size=1000), st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_inverse(data: bytes, mask: bytes) -> None:
    assert websocket.unmask(websocket.unmask(data, mask), mask) == data


def test_the_handshake_of_the_rfc() -> None:
    head = (
        "GET /x HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v9, v4.channel.k8s.io"
    )
    answer, protocol = websocket.handshake(parse_head(head.encode()), channels.WEBSOCKET_PROTOCOLS)
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    assert protocol == "v4.channel.k8s.io"
    with pytest.raises(BadRequest, match="v9"):
        websocket.handshake(parse_head(head.replace(", v4.channel.k8s.io", "").encode()), channels.WEBSOCKET_PROTOCOLS)


@pytest.mark.parametrize(
    "head", [b"", b"GET /", b"GET / HTTP/2", b"GET / HTTP/1.1\r\nno colon", b"GET / HTTP/1.1\r\nA : b"]
)
def test_what_is_no_request_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_head(head)


@given(
    st.lists(
        st.dictionaries(st.text(min_size=1, max_size=20).map(str.lower), st.text(max_size=50), max_size=5), max_size=5
    )
)
def test_header_blocks_survive_the_wire(blocks: list[dict[str, str]]) -> None:
    sender, receiver = spdy.HeaderCodec(), spdy.HeaderCodec()
    for headers in blocks:
        expected = {name.lower(): value for name, value in headers.items()}
        assert receiver.decode(sender.encode(headers)) == expected


def test_the_dictionary_is_the_protocols() -> None:
    import zlib

    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_a_header_bomb_is_refused() -> None:
    sender, receiver = spdy.HeaderCodec(), spdy.HeaderCodec()
    with pytest.raises(spdy.SpdyError):
        receiver.decode(sender.encode({"a": "x" * 10_000_000}))


@given(st.binary(max_size=200))
def test_nonsense_for_a_header_block_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(spdy.SpdyError):
        spdy._parse_headers(b"\x00\x00\xff\xff" + data)


async def test_frames_are_read_and_bounded() -> None:
    control = await spdy.read_frame(reader_of(spdy.control(spdy.PING, b"1234")))
    assert (control.kind, control.payload) == (spdy.PING, b"1234")
    data = await spdy.read_frame(reader_of(spdy.data_frame(7, b"abc", fin=True)))
    assert (data.kind, data.stream, data.payload, data.flags) == (0, 7, b"abc", spdy.FLAG_FIN)
    with pytest.raises(spdy.SpdyError):
        await spdy.read_frame(reader_of(struct.pack("!II", 1, 0xFFFFFF)))
    with pytest.raises(spdy.SpdyError, match="version"):
        await spdy.read_frame(reader_of(struct.pack("!HHI", 0x8002, 1, 0)))


def test_a_token_is_good_once_for_its_time_and_their_number_is_bounded() -> None:
    waiting: Waiting[str] = Waiting(seconds=60)
    token = waiting.add("request", at=0)
    assert waiting.take("other", at=1) is None
    assert waiting.take(token, at=1) == "request"
    assert waiting.take(token, at=1) is None
    assert waiting.take(waiting.add("late", at=0), at=61) is None
    for _ in range(1000):
        waiting.add("x", at=100)
    with pytest.raises(ResourceExhausted):
        waiting.add("x", at=100)
    waiting.add("x", at=200)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"Width":0,"Height":5}', b'{"Width":"x"}', b'{"Width":99999999,"Height":1}', b"\xff"]
)
def test_a_size_that_is_none_is_ignored(text: bytes) -> None:
    assert channels.parse_resize(text) is None


def test_statuses_are_what_kubectl_reads() -> None:
    assert channels.success() == {"metadata": {}, "status": "Success"}
    failure = json.loads(json.dumps(channels.failure("m", 3)))
    assert failure["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert failure["reason"] == "NonZeroExitCode"
