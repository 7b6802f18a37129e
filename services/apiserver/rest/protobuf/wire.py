"""The encoding beneath every message: tags, variable-length integers, length-delimited bytes.

Source: https://protobuf.dev/programming-guides/encoding/. Groups (wire types 3 and 4) are refused: nothing in
Kubernetes has ever had one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_DOUBLE = struct.Struct("<d")
# A number of 64 bits takes at most ten bytes.
_VARINT_SHIFT_MAX = 63
_UINT64 = (1 << 64) - 1


# Called once a field: raises when a body has used up the fields that it may have (`decoding.FIELDS_MAX`).
Spend = Callable[[], object]


class Malformed(Exception):
    """The bytes are not what the message's definition allows; the text says why."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned number at a place, and the place after it. Raises Malformed; IndexError past the end."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _UINT64, at
        shift += 7
        if shift > _VARINT_SHIFT_MAX:
            raise Malformed("a number is longer than ten bytes")


def read_double(data: bytes, at: int) -> float:
    """The double at a place. Raises struct.error past the end."""
    value: float = _DOUBLE.unpack_from(data, at)[0]
    return value


def signed64(value: int) -> int:
    """A varint's value as int64."""
    return value - (1 << 64) if value >> 63 else value


def signed32(value: int) -> int:
    """A varint's value as int32: of a longer one, the low 32 bits, as Go takes it."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def span(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Start and end of length-delimited bytes whose length is at a place. Raises Malformed."""
    length, start = read_varint(data, at)
    stop = start + length
    if stop > end:
        raise Malformed("a field ends beyond what contains it")
    return start, stop


def small_fields(data: bytes, at: int, end: int, spend: Spend) -> list[tuple[int, int | tuple[int, int]]]:
    """The fields of one of the small messages that have code of their own: number and value.

    The value is a varint's number, or start and end of length-delimited bytes; fixed-length fields are passed over.
    """
    found: list[tuple[int, int | tuple[int, int]]] = []
    while at < end:
        spend()
        key, at = read_varint(data, at)
        wire = key & 7
        if wire == VARINT:
            value, at = read_varint(data, at)
            found.append((key >> 3, value))
        elif wire == BYTES:
            start, at = span(data, at, end)
            found.append((key >> 3, (start, at)))
        else:
            at = skip_fixed(wire, at)
    if at != end:
        raise Malformed("a message ends beyond what contains it")
    return found


def skip_fixed(wire: int, at: int) -> int:
    """The place after a fixed-length value. Raises Malformed for a wire type that there is not."""
    if wire == FIXED64:
        return at + 8
    if wire == FIXED32:
        return at + 4
    raise Malformed(f"there is no wire type {wire}")


def varint(value: int) -> bytes:
    """A number's encoding; a negative one as its 64-bit two's complement."""
    value &= _UINT64
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """What stands before a field's value."""
    return varint(number << 3 | wire)


def double(value: float) -> bytes:
    """A double's encoding."""
    return _DOUBLE.pack(value)


def delimited(value: bytes) -> bytes:
    """Bytes after their length."""
    return varint(len(value)) + value
