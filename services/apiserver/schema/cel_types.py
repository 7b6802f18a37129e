"""A kind's schema as types for CEL's checker (`machinery.cel.typed`)."""

from __future__ import annotations

import re

from machinery.cel.typed import Field, Types
from services.apiserver.schema.definitions import Node

_SCALARS = {
    "string": "string", "quantity": "string", "integer": "int", "number": "double", "boolean": "bool",
    "bytes": "bytes", "time": "timestamp", "micro-time": "timestamp",
}  # fmt: skip
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9]")


def declare(types: Types, node: Node, name: str) -> str:
    """Add the messages of an object's schema; the name of its own. A definition is one message, wherever it is used."""
    name = _NOT_A_NAME.sub("_", node.definition or name)
    if name not in types.messages:
        # Named before its fields are looked at: definitions may contain themselves.
        types.message(name, {})
        types.message(name, {key: _field(types, below, f"{name}_{key}") for key, below in node.fields.items()})
    return name


def _field(types: Types, node: Node, name: str) -> Field:
    if node.type == "array":
        kind, message = _item(types, node.item, name)
        return Field(kind, message, repeated=True) if kind else Field("dyn")
    if node.type == "map":
        kind, message = _item(types, node.item, name)
        return Field(kind, message, keyed=True) if kind else Field("dyn")
    kind, message = _item(types, node, name)
    return Field(kind or "dyn", message)


def _item(types: Types, node: Node, name: str) -> tuple[str, str]:
    """(kind, message); no kind for what a list or map can't have as its items' type: it is not typed then."""
    if node.type in _SCALARS:
        return _SCALARS[node.type], ""
    if node.type == "object" and node.fields and not node.open_fields:
        return "message", declare(types, node, name)
    return ("", "") if node.type in ("array", "map") else ("dyn", "")
