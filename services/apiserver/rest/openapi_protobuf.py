"""/openapi/v2 in the only form that older Go clients ask for: the protobuf of the openapi.v2 schema.

What is encoded are the definitions, by which those clients look kinds up and check manifests; they use no paths.
Numbers are those of the published `OpenAPIv2.proto`: Document {swagger 1, info 2, paths 8, definitions 9}, Schema
{$ref 1, format 2, description 4, required 19, additionalProperties 21, type 22, items 23, properties 25, extensions
31}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.apiserver.rest.responses import json_bytes

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What clients write in Accept; as a Content-Type it would be malformed.
_ASKED_AS = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def wanted(accept: str) -> bool:
    """Whether a client takes this form and no JSON."""
    return "application/json" not in accept and (MEDIA_TYPE in accept or _ASKED_AS in accept)


def encode(document: Mapping[str, Any]) -> bytes:
    """A Swagger 2.0 document as protobuf."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    definitions = b"".join(_bytes(1, _named(name, _schema(schema))) for name, schema in document["definitions"].items())
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, b"") + _bytes(9, definitions)


def _schema(schema: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for number, field in ((1, "$ref"), (2, "format"), (4, "description")):
        if schema.get(field):
            parts.append(_text(number, schema[field]))
    parts += [_text(19, name) for name in schema.get("required", ())]
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        parts.append(_bytes(21, _bytes(1, _schema(more))))
    if schema.get("type"):
        parts.append(_bytes(22, _text(1, schema["type"])))
    if isinstance(schema.get("items"), Mapping):
        parts.append(_bytes(23, _bytes(1, _schema(schema["items"]))))
    if schema.get("properties"):
        parts.append(_bytes(25, _properties(schema["properties"].items())))
    for name, value in schema.items():
        if name.startswith("x-"):
            parts.append(_bytes(31, _named(name, _text(2, json_bytes(value).decode()))))
    return b"".join(parts)


def _properties(properties: Iterable[tuple[str, Mapping[str, Any]]]) -> bytes:
    return b"".join(_bytes(1, _named(name, _schema(schema))) for name, schema in properties)


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _bytes(2, value)


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
