"""Objects as they are in JSON into messages: the other way of `decoding.py`.

Fields are written by ascending number, maps by key, so the same object always gives the same bytes. Null, and what
the table does not know, is left out; a zero that is there is written, which every decoder takes.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Mapping
from typing import Any

from services.apiserver.rest.protobuf import scalars, table
from services.apiserver.rest.protobuf.wire import BYTES, FIXED64, VARINT, delimited, double, tag, varint


class Unencodable(Exception):
    """A value is not of its field's type; the text begins with the field's path."""


def encode_message(message: table.Message, value: Mapping[str, Any], path: str = "") -> bytes:
    """The message's bytes. Raises Unencodable."""
    if not isinstance(value, Mapping):
        raise Unencodable(f"{path}: {type(value).__name__} where an object is expected")
    parts: list[bytes] = []
    for field in message.fields:
        if not field.name:
            inner = table.message(field.type)
            if not _names(inner).isdisjoint(value):
                parts.append(tag(field.number, BYTES) + delimited(encode_message(inner, value, path)))
            continue
        content = value.get(field.name)
        if content is not None:
            below = f"{path}.{field.name}" if path else field.name
            _field(field, content, below, parts)
    return b"".join(parts)


@functools.cache
def _named_fields(name: str) -> frozenset[str]:
    names: set[str] = set()
    for field in table.message(name).fields:
        names |= {field.name} if field.name else _named_fields(field.type)
    return frozenset(names)


def _names(message: table.Message) -> frozenset[str]:
    """The names that a message has in JSON, those of messages inside of it that have none included."""
    return _named_fields(message.name)


def _field(field: table.Field, content: Any, path: str, parts: list[bytes]) -> None:
    if field.container == "[]":
        if not isinstance(content, list | tuple):
            raise Unencodable(f"{path}: {type(content).__name__} where a list is expected")
        for index, item in enumerate(content):
            parts.append(_value(field.number, field.type, item, f"{path}[{index}]"))
    elif field.container == "{}":
        if not isinstance(content, Mapping):
            raise Unencodable(f"{path}: {type(content).__name__} where a map is expected")
        for key in sorted(content):
            entry = tag(1, BYTES) + delimited(key.encode())
            if content[key] is not None:
                entry += _value(2, field.type, content[key], f"{path}[{key}]")
            parts.append(tag(field.number, BYTES) + delimited(entry))
    else:
        parts.append(_value(field.number, field.type, content, path))


def _value(number: int, kind: str, value: Any, path: str) -> bytes:
    """A field's tag and value."""
    try:
        if kind in table.VARINTS:
            return tag(number, VARINT) + varint(_integer(kind, value))
        if kind == "double":
            return tag(number, FIXED64) + double(value)
        return tag(number, BYTES) + delimited(_content(kind, value, path))
    except (TypeError, ValueError, AttributeError, OverflowError, binascii.Error) as error:
        raise Unencodable(f"{path}: {error}") from error


def _integer(kind: str, value: Any) -> int:
    if kind == "bool":
        if not isinstance(value, bool):
            raise TypeError(f"{value!r} is not true or false")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    bits = 31 if kind == "int32" else 63
    if not -(1 << bits) <= value < 1 << bits:
        raise ValueError(f"{value} does not fit {kind}")
    return value


def _content(kind: str, value: Any, path: str) -> bytes:
    if kind == "string":
        encoded: bytes = value.encode()
        return encoded
    if kind == "bytes":
        return base64.b64decode(value, validate=True)
    if kind in scalars.SPECIAL:
        return scalars.SPECIAL[kind][1](value)
    message = table.message(kind)
    if kind in scalars.SCHEMA_OR_ELSE:
        value = {"schema" if isinstance(value, Mapping) else "else": value}
    return encode_message(message, value, path)
