"""Kubernetes' protobuf bodies as plain objects: Go clients since 1.33 send built-in kinds this way and fall back to
nothing else.

A body is `k8s\\0` and a `runtime.Unknown` {typeMeta = 1 {apiVersion = 1, kind = 2}, raw = 2}; `raw` is the object's
own message. `protobuf_fields.json` gives each message's fields as `number:json name:type`:

    s string   b bool   i integer   f double   y bytes (base64 in JSON)   x a message that wraps a list of strings
    .PodSpec a message of the same package   meta/v1.ObjectMeta one of another
    * in front: optional, so that a zero counts   [ a list   { a map from strings
    ? after the name: a zero means that the field is not set      no name: the message's fields belong to the object
    around it

Answers are JSON, which these clients take.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from machinery.api import errors

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_DEPTH_MAX = 200
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    omit_zero: bool
    optional: bool
    container: str
    type: str


@cache
def _table() -> dict[str, str]:
    table: dict[str, str] = json.loads((Path(__file__).parent / "protobuf_fields.json").read_bytes())
    return table


@cache
def _fields(message: str) -> dict[int, _Field]:
    package = message.rpartition(".")[0]
    out = {}
    for text in _table()[message].split():
        number, name, kind = text.split(":")
        optional, kind = kind.startswith("*"), kind.lstrip("*")
        container = kind[0] if kind[0] in "[{" else ""
        kind = kind[len(container) :]
        if kind.startswith("."):
            kind = package + kind
        out[int(number)] = _Field(name.rstrip("?"), name.endswith("?"), optional, container, kind)
    return out


def decode(body: bytes) -> dict[str, Any]:
    """The object in a protobuf body. Raises BadRequest, UnsupportedMediaType."""
    if not body.startswith(_MAGIC):
        raise errors.BadRequest("the body does not begin with the mark of Kubernetes' protobuf encoding")
    try:
        envelope = {number: value for number, _, value in _wire(body[len(_MAGIC) :])}
        meta = {number: value.decode() for number, _, value in _wire(envelope.get(1, b""))}
        api_version, kind = meta.get(1, ""), meta.get(2, "")
        message = _message_name(api_version, kind)
        if message is None:
            raise errors.UnsupportedMediaType(f"{api_version} {kind} is not known in protobuf here: send it as JSON")
        return {"apiVersion": api_version, "kind": kind, **_decode(message, envelope.get(2, b""), 0)}
    except (ValueError, IndexError, struct.error, AttributeError, TypeError, RecursionError) as error:
        raise errors.BadRequest(f"the protobuf body can't be decoded: {error}") from error


def _message_name(api_version: str, kind: str) -> str | None:
    group, _, version = api_version.rpartition("/")
    package = f"{group.split('.')[0] or 'core'}/{version}"
    for name in (f"{package}.{kind}", f"meta/v1.{kind}"):
        if name in _table():
            return name
    return None


def _wire(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """The fields of a message: number, wire type, value."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        value: Any
        if wire_type == _BYTES:
            length, position = _varint(data, position)
            if position + length > end:
                raise ValueError("a field is cut off")
            value = data[position : position + length]
            position += length
        elif wire_type == _VARINT:
            value, position = _varint(data, position)
        elif wire_type == _FIXED64:
            value = struct.unpack_from("<d", data, position)[0]
            position += 8
        elif wire_type == _FIXED32:
            value = struct.unpack_from("<f", data, position)[0]
            position += 4
        else:
            raise ValueError(f"wire type {wire_type}")
        yield number, wire_type, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _decode(message: str, data: bytes, depth: int) -> dict[str, Any]:
    if depth > _DEPTH_MAX:
        raise ValueError("nested too deeply")
    fields = _fields(message)
    out: dict[str, Any] = {}
    for number, _, raw in _wire(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.container == "{":
            key, value = _entry(field.type, raw, depth)
            out.setdefault(field.name, {})[key] = value
            continue
        value = _value(field.type, raw, depth)
        if field.container == "[":
            out.setdefault(field.name, []).append(value)
        elif not field.name:
            out.update(value)
        elif field.optional or not _is_unset(field, value):
            out[field.name] = value
    return out


def _is_unset(field: _Field, value: Any) -> bool:
    """Whether JSON would leave the field out: zero values of omitempty fields, and a time that is no time."""
    if value is None:
        return True
    return field.omit_zero and not isinstance(value, dict) and not value


def _entry(kind: str, data: bytes, depth: int) -> tuple[str, Any]:
    key, raw = "", None
    for number, _, value in _wire(data):
        if number == 1:
            key = value.decode()
        else:
            raw = value
    if raw is None:
        raw = 0 if kind in "bif" else b""
    return key, _value(kind, raw, depth)


def _value(kind: str, raw: Any, depth: int) -> Any:
    convert = _SCALARS.get(kind)
    if convert is not None:
        return convert(raw)
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(raw)
    return _decode(kind, raw, depth + 1)


def _signed(raw: int) -> int:
    return raw - (1 << 64) if raw >= 1 << 63 else raw


def _time(data: bytes, *, micro: bool = False) -> str | None:
    parts = {number: value for number, _, value in _wire(data)}
    if not parts.get(1) and not parts.get(2):
        return None
    moment = datetime.fromtimestamp(_signed(parts.get(1, 0)), UTC)
    if not micro:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{parts.get(2, 0) // 1000:06d}Z"


def _quantity(data: bytes) -> str:
    return next((value.decode() for number, _, value in _wire(data) if number == 1), "0")


def _int_or_string(data: bytes) -> int | str:
    parts = {number: value for number, _, value in _wire(data)}
    if parts.get(1):
        text: str = parts.get(3, b"").decode()
        return text
    # A 32-bit number that is negative comes as 64 bits.
    return _signed(parts.get(2, 0))


def _duration(data: bytes) -> str:
    nanoseconds = _signed(next((value for number, _, value in _wire(data) if number == 1), 0))
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    text = f"{hours}h{minutes}m{seconds}{fraction}s" if hours else f"{minutes}m{seconds}{fraction}s"
    return f"-{text}" if nanoseconds < 0 else text


def _embedded_json(data: bytes) -> Any:
    raw = next((value for number, _, value in _wire(data) if number == 1), b"null")
    return orjson.loads(raw)


def _strings(data: bytes) -> list[str]:
    return [value.decode() for number, _, value in _wire(data) if number == 1]


def _schema_or(other: int, other_kind: str, schema_number: int = 1) -> Callable[[bytes], Any]:
    """JSONSchemaPropsOr…: a schema, or else the other thing."""

    def convert(data: bytes) -> Any:
        schema, rest = None, []
        for number, _, value in _wire(data):
            if number == schema_number:
                schema = _decode("apiextensions/v1.JSONSchemaProps", value, 1)
            elif number == other:
                rest.append(_value(other_kind, value, 1))
        if schema is not None:
            return schema
        return rest if other_kind != "b" else bool(rest and rest[0])

    return convert


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "s": lambda raw: raw.decode(),
    "b": bool,
    "i": _signed,
    "f": float,
    "y": lambda raw: base64.b64encode(raw).decode(),
    "x": _strings,
}
_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    "meta/v1.Time": _time,
    "meta/v1.MicroTime": lambda data: _time(data, micro=True),
    "meta/v1.Duration": _duration,
    "api/resource.Quantity": _quantity,
    "util/intstr.IntOrString": _int_or_string,
    "runtime.RawExtension": _embedded_json,
    "meta/v1.FieldsV1": _embedded_json,
    "apiextensions/v1.JSON": _embedded_json,
    "apiextensions/v1.JSONSchemaPropsOrArray": _schema_or(2, "apiextensions/v1.JSONSchemaProps"),
    "apiextensions/v1.JSONSchemaPropsOrBool": _schema_or(1, "b", schema_number=2),
    "apiextensions/v1.JSONSchemaPropsOrStringArray": _schema_or(2, "s"),
}
