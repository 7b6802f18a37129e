"""Types whose JSON form is not that of their fields, both ways: times, quantities, numbers or strings,
and JSON inside of a message.

A reader takes the bytes, where the message starts and ends, and what counts fields; it gives the JSON value, or None
for "not set". A writer takes the JSON value and gives the message's bytes; it raises ValueError or TypeError for one
that can't be.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from services.apiserver.rest.protobuf.wire import (
    BYTES,
    VARINT,
    Malformed,
    Spend,
    delimited,
    signed32,
    signed64,
    small_fields,
    tag,
    varint,
)

Reader = Callable[[bytes, int, int, Spend], Any]
Writer = Callable[[Any], bytes]

_NANOSECONDS = 1_000_000_000


def _numbers(data: bytes, start: int, end: int, spend: Spend) -> dict[int, int]:
    return {number: value for number, value in small_fields(data, start, end, spend) if isinstance(value, int)}


def _text(data: bytes, start: int, end: int, spend: Spend, wanted: int) -> str | None:
    """The last string of that number, as protobuf has it."""
    found = None
    for number, value in small_fields(data, start, end, spend):
        if number == wanted and isinstance(value, tuple):
            found = data[value[0] : value[1]].decode()
    return found


def read_time(data: bytes, start: int, end: int, spend: Spend) -> str | None:
    """`2026-01-02T03:04:05Z`; an empty message is Go's zero time, which is null in JSON."""
    moment = _moment(data, start, end, spend)
    return moment and f"{_seconds(moment[0])}Z"


def read_micro_time(data: bytes, start: int, end: int, spend: Spend) -> str | None:
    """`2026-01-02T03:04:05.000006Z`."""
    moment = _moment(data, start, end, spend)
    return moment and f"{_seconds(moment[0])}.{moment[1] // 1000:06d}Z"


def _seconds(moment: datetime) -> str:
    """Up to the second, with four digits for the year: strftime leaves out the zeros before the year 1000."""
    return moment.replace(tzinfo=None, microsecond=0).isoformat()


def _moment(data: bytes, start: int, end: int, spend: Spend) -> tuple[datetime, int] | None:
    if start == end:
        return None
    parts = _numbers(data, start, end, spend)
    seconds, nanoseconds = signed64(parts.get(1, 0)), signed32(parts.get(2, 0))
    if not 0 <= nanoseconds < _NANOSECONDS:
        raise Malformed(f"a time has {nanoseconds} nanoseconds")
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise Malformed(f"a time of {seconds} seconds since 1970 is beyond the years 1 to 9999") from error
    return moment, nanoseconds


def write_time(value: Any, *, micro: bool = False) -> bytes:
    """A time of RFC 3339; upstream keeps whole seconds, or microseconds in MicroTime."""
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without its offset from UTC")
    seconds = int(moment.replace(microsecond=0).timestamp())
    nanoseconds = moment.microsecond * 1000 if micro else 0
    return tag(1, VARINT) + varint(seconds) + tag(2, VARINT) + varint(nanoseconds)


def write_micro_time(value: Any) -> bytes:
    """As `write_time`, with microseconds."""
    return write_time(value, micro=True)


def read_quantity(data: bytes, start: int, end: int, spend: Spend) -> str:
    """`100m`."""
    return _text(data, start, end, spend, 1) or "0"


def write_quantity(value: Any) -> bytes:
    """A quantity; JSON allows it to be a number."""
    return tag(1, BYTES) + delimited(str(value).encode())


def read_int_or_string(data: bytes, start: int, end: int, spend: Spend) -> int | str:
    """IntOrString {type = 1 (0: number), intVal = 2, strVal = 3}."""
    parts = _numbers(data, start, end, spend)
    if parts.get(1):
        return _text(data, start, end, spend, 3) or ""
    return signed32(parts.get(2, 0))


def write_int_or_string(value: Any) -> bytes:
    """The same as bytes."""
    if isinstance(value, str):
        return tag(1, VARINT) + varint(1) + tag(3, BYTES) + delimited(value.encode())
    return tag(1, VARINT) + varint(0) + tag(2, VARINT) + varint(_whole(value))


def read_json(data: bytes, start: int, end: int, spend: Spend) -> Any:
    """A message {raw = 1} around JSON text: any value; none at all is null."""
    raw = b""
    for number, value in small_fields(data, start, end, spend):
        if number == 1 and isinstance(value, tuple):
            raw = data[value[0] : value[1]]
    try:
        return orjson.loads(raw) if raw else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the JSON inside of it is not valid: {error}") from error


def write_json(value: Any) -> bytes:
    """The same as bytes."""
    return tag(1, BYTES) + delimited(orjson.dumps(value))


def read_strings(data: bytes, start: int, end: int, spend: Spend) -> list[str]:
    """A message {items = 1} around a list of strings."""
    return [
        data[value[0] : value[1]].decode()
        for number, value in small_fields(data, start, end, spend)
        if number == 1 and isinstance(value, tuple)
    ]


def write_strings(value: Any) -> bytes:
    """The same as bytes."""
    return b"".join(tag(1, BYTES) + delimited(item.encode()) for item in value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value


SPECIAL: dict[str, tuple[Reader, Writer]] = {
    "strings": (read_strings, write_strings),
    "meta/v1.Time": (read_time, write_time),
    "meta/v1.MicroTime": (read_micro_time, write_micro_time),
    "meta/v1.FieldsV1": (read_json, write_json),
    "runtime.RawExtension": (read_json, write_json),
    "apiextensions/v1.JSON": (read_json, write_json),
    "resource.Quantity": (read_quantity, write_quantity),
    "intstr.IntOrString": (read_int_or_string, write_int_or_string),
}
# A schema of a custom resource, or else something simpler (True or False, a list). In the table these are messages of
# two fields, `schema` and `else`; JSON has the value of the one that is set. The default is Go's for neither.
SCHEMA_OR_ELSE: dict[str, Any] = {
    "apiextensions/v1.JSONSchemaPropsOrArray": None,
    "apiextensions/v1.JSONSchemaPropsOrBool": False,
    "apiextensions/v1.JSONSchemaPropsOrStringArray": None,
}
