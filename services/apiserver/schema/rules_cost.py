"""What the rules of a schema may cost: the bounds that a schema sets its values, and the budgets of rules and schemas.

Pure. The numbers are upstream's (k8s.io/apiserver/pkg/cel/common/schemas.go, and the validation of
CustomResourceDefinitions in apiextensions-apiserver): which definitions are accepted depends on each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from machinery.api.errors import Cause
from machinery.cel import typed
from machinery.cel.shapes import INFINITE, Shape
from services.apiserver.schema import causes
from services.apiserver.schema.structural import EMBEDDED, INT_OR_STRING

Schema = dict[str, Any]

RULE_MAX = 10_000_000
"""What one rule may be estimated to cost, as often as it can stand in an object."""
SCHEMA_MAX = 100_000_000
"""What all rules of a schema may be estimated to cost."""
REQUEST_BYTES_MAX = 3 * 1024 * 1024
"""What an object without any bound is taken to hold; part of the estimate, whatever the server really takes."""
_NAMED_MAX = 4
"""How many of the most expensive rules are named when all together are too expensive."""

_TEXT_MAX = REQUEST_BYTES_MAX - 2
_STAMP_BYTES, _DATE_BYTES = 32, 12
_ITEM_KEY_BYTES = 6
_STRING = Shape("string", elements_max=_TEXT_MAX)
_INT, _DOUBLE, _BOOL = Shape("int", bytes_min=1), Shape("double", bytes_min=1), Shape("bool", bytes_min=4)
_METADATA = Shape("object", fields={"name": _STRING, "generateName": _STRING})


def shape_of(schema: Schema, *, root: bool = False) -> Shape | None:
    """What rules know of a schema's values; None for what they can't see. `root` of a resource has an identity."""
    if schema.get(INT_OR_STRING):
        length = schema.get("maxLength")
        return Shape("dyn", elements_max=_TEXT_MAX if length is None else max(length, 0) * 4, bytes_min=1)
    if root:
        return _object(schema, identity=True)
    match schema.get("type"):
        case "array":
            return _list(schema)
        case "object":
            extra = schema.get("additionalProperties")
            return _map(schema, extra) if isinstance(extra, dict) else _object(schema, identity=False)
        case "string":
            return _text(schema)
        case "boolean":
            return _BOOL
        case "number":
            return _DOUBLE
        case "integer":
            return _INT
    return None


def _below(schema: Any) -> Shape | None:
    return shape_of(schema, root=bool(schema.get(EMBEDDED))) if isinstance(schema, dict) else None


def _list(schema: Schema) -> Shape | None:
    item = _below(schema.get("items"))
    if item is None:
        return None
    most = schema.get("maxItems")
    return Shape("list", item, elements_max=max(most, 0) if most is not None else _TEXT_MAX // (item.bytes_min + 1))


def _map(schema: Schema, extra: Schema) -> Shape | None:
    value = _below(extra)
    if value is None:
        return None
    most = schema.get("maxProperties")
    room = value.bytes_min + _ITEM_KEY_BYTES
    # Keys count as empty: a schema can't say how long one may be.
    return Shape("map", value, Shape("string"), elements_max=max(most, 0) if most is not None else _TEXT_MAX // room)


def _object(schema: Schema, *, identity: bool) -> Shape:
    required = set(schema.get("required") or ())
    fields: dict[str, Shape] = {}
    least = 2
    for name, below in (schema.get("properties") or {}).items():
        shape = _below(below)
        if shape is None:
            continue
        fields[typed.escaped(name)] = shape
        if name in required and "default" not in below:
            least += len(name) + shape.bytes_min + 4
    if identity:
        fields |= {"apiVersion": _STRING, "kind": _STRING, "metadata": _METADATA}
    return Shape("object", fields=fields, bytes_min=least)


def _text(schema: Schema) -> Shape:
    length = schema.get("maxLength")
    match schema.get("format"):
        case "byte":
            return Shape("bytes", elements_max=_TEXT_MAX if length is None else max(length, 0))
        case "duration":
            return Shape("duration", elements_max=_STAMP_BYTES, bytes_min=3)
        case "date":
            return Shape("timestamp", elements_max=_DATE_BYTES, bytes_min=_DATE_BYTES)
        case "date-time":
            return Shape("timestamp", elements_max=_STAMP_BYTES, bytes_min=21)
    if length is not None:
        # Lengths are characters, of up to four bytes.
        return Shape("string", elements_max=max(length, 0) * 4)
    if schema.get("enum"):
        texts = [len(one.encode()) for one in schema["enum"] if isinstance(one, str)]
        return Shape("string", elements_max=max(texts, default=0))
    return _STRING


def times_below(schema: Schema, times: int | None) -> int | None:
    """How often what stands below a schema can occur if itself occurs so often; None if there is no bound."""
    match schema.get("type"):
        case "array":
            most = schema.get("maxItems")
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            most = schema.get("maxProperties")
        case _:
            return times
    return None if times is None or most is None else min(times * max(most, 0), INFINITE)


def total(cost: int, times: int | None, shape: Shape) -> int:
    """What a rule costs as often as it can stand in an object, which is as often as its values have room in one if
    nothing else bounds them."""
    if times is None:
        times = REQUEST_BYTES_MAX // (shape.bytes_min + 1)
    return min(cost * times, INFINITE)


@dataclass(slots=True)
class Budget:
    """What the rules of one schema cost together."""

    spent: int = 0
    _expensive: list[tuple[int, str]] = field(default_factory=list)

    def charge(self, path: str, what: str, cost: int) -> list[Cause]:
        """Count a rule or a message's expression that stands at a path; what is wrong with it alone."""
        self.spent = min(self.spent + cost, INFINITE)
        if cost >= SCHEMA_MAX // 100:
            self._expensive.append((cost, path))
        return [causes.forbidden(path, exceeds(f"estimated {what} cost", cost, RULE_MAX))] if cost > RULE_MAX else []

    def verdict(self, path: str) -> list[Cause]:
        """What is wrong with all of them together; the schema stands at `path`."""
        if self.spent <= SCHEMA_MAX:
            return []
        most = sorted(self._expensive, key=lambda one: -one[0])[:_NAMED_MAX]
        detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        named = [causes.forbidden(where, detail) for _, where in most]
        return [*named, causes.forbidden(path, exceeds(what, self.spent, SCHEMA_MAX))]


def exceeds(what: str, cost: int, most: int) -> str:
    """By how much a cost is over its budget, and what helps."""
    factor = cost / most
    shown = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return (
        f"{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )
