"""The types of a schema's values for CEL's checker: what rules may compare and which fields they may name."""

from __future__ import annotations

import re

from machinery.cel.shapes import Shape
from machinery.cel.typed import PACKAGE, Field, Types, checked

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z").match
_NAMES = {"timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration"}
_SCALARS = frozenset(("string", "int", "double", "bool", "bytes", "timestamp", "duration"))


class RuleTypes:
    """The types of one schema. Made of its root's shape; judges the rules of every node below it."""

    def __init__(self, root: Shape) -> None:
        self._types = Types(escape=False)
        # By identity: a shape is a node of the schema, and equal ones elsewhere are other messages.
        self._messages: dict[int, str] = {}
        self._declare(root)
        # Kept as long as their identities count.
        self._root = root

    def problem(self, source: str, shape: Shape, wanted: str, *, old_is_optional: bool) -> str:
        """What the checker says against an expression over a node's values, or `wanted` if its value is of another
        type; empty if nothing."""
        text = self._text(shape)
        # No type that can be named here is CEL's optional one, so that such an `oldSelf` may be anything.
        old = "" if old_is_optional else text
        complaint, kind = checked(source, self._types, {"self": text, "oldSelf": old})
        if complaint:
            return complaint
        return "" if kind.lower() in (wanted, "") else wanted

    def _declare(self, shape: Shape) -> None:
        for below in (shape.item, *shape.fields.values()):
            if below is not None:
                self._declare(below)
        if shape.kind != "object" or id(shape) in self._messages:
            return
        name = self._messages[id(shape)] = f"Object{len(self._messages)}"
        named = {key: below for key, below in shape.fields.items() if _IDENTIFIER(key)}
        self._types.message(name, {key: self._field(below) for key, below in named.items()})

    def _field(self, shape: Shape) -> Field:
        if shape.kind in ("list", "map"):
            # A list of lists is no field that a message can have: its items may be anything.
            item = shape.item
            if item is None or item.kind in ("list", "map", "dyn"):
                return Field("dyn")
            kind, message = self._item(item)
            return Field(kind, message, repeated=shape.kind == "list", keyed=shape.kind == "map")
        kind, message = self._item(shape)
        return Field(kind, message)

    def _item(self, shape: Shape) -> tuple[str, str]:
        if shape.kind == "object":
            return "message", self._messages[id(shape)]
        return (shape.kind if shape.kind in _SCALARS else "dyn"), ""

    def _text(self, shape: Shape) -> str:
        """A type as CEL's environment takes it; empty for any type."""
        match shape.kind:
            case "object":
                message = self._messages.get(id(shape))
                return f"{PACKAGE}.{message}" if message else ""
            case "list":
                return f"list<{(shape.item and self._text(shape.item)) or 'dyn'}>"
            case "map":
                return f"map<string, {(shape.item and self._text(shape.item)) or 'dyn'}>"
        return _NAMES.get(shape.kind, shape.kind) if shape.kind in _SCALARS else ""
