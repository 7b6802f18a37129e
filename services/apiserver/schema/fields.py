"""Fields that a kind doesn't have, and nulls."""

from __future__ import annotations

from typing import Any

from services.apiserver.schema import definitions
from services.apiserver.schema.definitions import KindLike, Node
from services.apiserver.schema.structure import Sort, faults, is_sound

_ZERO: dict[str, Any] = {"string": "", "bytes": "", "integer": 0, "number": 0, "boolean": False, "quantity": "0"}


def unknown_fields(kind: KindLike, obj: dict[str, Any]) -> list[str]:
    """Paths of the fields that the kind doesn't have, in the order in which they stand: `spec.containers[0].foo`."""
    if is_sound(kind, obj):
        return []
    return [fault.field for fault in faults(kind, obj) if fault.sort is Sort.UNKNOWN]


def prune(kind: KindLike, obj: dict[str, Any]) -> None:
    """Drop, in place, what Go's decoder would not keep: fields that the kind doesn't have, and nulls.

    A null in a map of strings is the empty string and a null item of a list is its type's zero, as in Go.
    """
    node = definitions.node_for(kind)
    if node is not None:
        clean(node, obj)


def drop_nulls(kind: KindLike, obj: dict[str, Any]) -> None:
    """The half of `prune` that is about nulls."""
    node = definitions.node_for(kind)
    if node is not None:
        clean(node, obj, keep_unknown=True)


def clean(node: Node, value: Any, *, keep_unknown: bool = False) -> None:
    """`prune` below one node."""
    if isinstance(value, dict):
        if node.type == "object":
            _clean_object(node, value, keep_unknown)
        elif node.type == "map":
            for key, below in value.items():
                if below is None:
                    value[key] = _zero(node.item)
                else:
                    clean(node.item, below, keep_unknown=keep_unknown)
    elif isinstance(value, list) and node.type == "array":
        for index, below in enumerate(value):
            if below is None:
                value[index] = _zero(node.item)
            else:
                clean(node.item, below, keep_unknown=keep_unknown)


def _clean_object(node: Node, value: dict[str, Any], keep_unknown: bool) -> None:
    fields = node.fields
    for name in list(value):
        below = value[name]
        field = fields.get(name)
        if field is None:
            if not node.open_fields and not keep_unknown:
                del value[name]
        elif below is None:
            if field.type != "any":
                del value[name]
        elif field.type in ("object", "map", "array"):
            clean(field, below, keep_unknown=keep_unknown)


def _zero(node: Node) -> Any:
    if node.type == "array":
        return []
    return _ZERO.get(node.type, {})
