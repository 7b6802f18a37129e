"""One compiled validator a kind, and the slow walk that says what it found.

`is_sound(kind, obj)` is the whole of structural validation for an object without fault: types, no unknown field, no
null, required fields there, enumerations, ranges and formats of `constraints`. `faults(kind, obj)` walks the same
object in Python and returns each fault with its path; it is only called when `is_sound` says no. The two are held
together by a test that mutates objects.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from machinery.api.errors import Cause
from services.apiserver.schema import canonical, causes, definitions
from services.apiserver.schema.constraints import (
    CONSTRAINTS,
    REQUIRED_DETAIL,
    ZERO_IS_FINE,
    is_observed,
    short_name,
)
from services.apiserver.schema.definitions import KindLike, Node

QUANTITY_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(|[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)$"
_quantity = re.compile(QUANTITY_PATTERN[:-1] + r"\Z").match
TIME_PATTERN = r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"
_time = re.compile(TIME_PATTERN[:-1] + r"\Z").match
_base64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z").match
_NO_LIMIT_DEPTH = 512
"""Objects nested deeper are refused before they are walked; upstream's decoder stops at 10,000."""

_INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_SCALARS: dict[str, Any] = {
    "quantity": {"anyOf": [{"type": "string", "pattern": QUANTITY_PATTERN}, {"type": "number"}]},
    "int-or-string": {"type": ["integer", "string"]},
    "time": {"type": "string", "pattern": TIME_PATTERN},
    "micro-time": {"type": "string", "pattern": TIME_PATTERN},
    "open": {"type": "object"},
    "any": {},
}


class Sort(enum.Enum):
    """What a fault means: TYPE can't be decoded, UNKNOWN warns or is strict's, NULL is dropped, VALUE breaks a rule."""

    TYPE = 1
    UNKNOWN = 2
    NULL = 3
    VALUE = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `field` is its path; `message` is the decoder's for TYPE; `cause` is set for VALUE."""

    sort: Sort
    field: str
    message: str = ""
    cause: Cause | None = None


_validators: dict[str, Any] = {}


def is_sound(kind: KindLike, obj: dict[str, Any]) -> bool:
    """True if nothing structural is wrong with an object of a built-in kind; True for a kind that has no definition."""
    name = definitions.definition_name(kind.group, kind.version, kind.kind)
    if name is None:
        return True
    validator = _validators.get(name)
    if validator is None:
        validator = _validators[name] = compile_definition(name)
    sound: bool = validator.is_valid(obj)
    return sound


def faults(kind: KindLike, obj: dict[str, Any]) -> list[Fault]:
    """Every structural fault of an object, in the order of its fields."""
    return list(each_fault(kind, obj))


def each_fault(kind: KindLike, obj: dict[str, Any]) -> Iterator[Fault]:
    """The same, found as they are asked for."""
    node = definitions.node_for(kind)
    return iter(()) if node is None else _walk(node, obj, "", "", "")


def walk(node: Node, value: Any, field: str) -> Iterator[Fault]:
    """Every fault at and below one value, which stands at the path `field` of its object."""
    return _walk(node, value, field, field, "")


def compile_definition(name: str) -> Any:
    """The validator of one definition with exactly the definitions that it reaches."""
    reached: dict[str, Any] = {}
    pending = [name]
    while pending:
        current = pending.pop()
        if current not in reached:
            relaxed = current.endswith(_RELAXED)
            node = definitions.node_named(current.removesuffix(_RELAXED))
            reached[current] = _object_schema(node, pending, relaxed or is_observed(node.definition))
    document = {
        # Draft 4, where 1.0 is no integer: neither is it to Go's decoder.
        "$schema": "http://json-schema.org/draft-04/schema#",
        "$ref": f"#/definitions/{name}",
        "definitions": reached,
    }
    return jsonschema_rs.Draft4Validator(document, pattern_options=jsonschema_rs.RegexOptions())


_RELAXED = "~"
"""Marks the form of a definition that requires no field: what stands below a status, which nobody
judges for completeness.
"""


def required_fields(node: Node) -> frozenset[str]:
    """The fields of an object that validation requires, unless it is part of a status."""
    return node.required - ZERO_IS_FINE.get(short_name(node.definition), frozenset())


def _object_schema(node: Node, pending: list[str], relaxed: bool) -> Any:
    """JSON schema of a definition's object; definitions that it refers to are added to `pending`."""
    if node.type != "object":
        return _schema(node, pending, relaxed, by_reference=False)
    limits = CONSTRAINTS.get(short_name(node.definition), {})
    wanted = frozenset() if relaxed else required_fields(node)
    properties: dict[str, Any] = {}
    for name, field in node.fields.items():
        schema = _schema(field, pending, relaxed)
        if name in wanted and isinstance(schema, dict) and "$ref" not in schema:
            # Each says something of its own type alone: the empty string and the empty list are absent, as in Go.
            schema = {**schema, "minLength": 1, "minItems": 1}
        if name in limits:
            schema = {"allOf": [schema, limits[name].fragment]}
        properties[name] = schema
    out: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": node.open_fields}
    if wanted:
        out["required"] = sorted(wanted)
    return out


def _schema(node: Node, pending: list[str], relaxed: bool, *, by_reference: bool = True) -> Any:
    if node.type in _SCALARS:
        return _SCALARS[node.type]
    match node.type:
        case "object":
            if by_reference and node.definition:
                target = node.definition + _RELAXED if relaxed else node.definition
                pending.append(target)
                return {"$ref": f"#/definitions/{target}"}
            return _object_schema(node, pending, relaxed)
        case "array":
            return {"type": "array", "items": _schema(node.item, pending, relaxed)}
        case "map":
            return {"type": "object", "additionalProperties": _schema(node.item, pending, relaxed)}
        case "integer":
            return _INT64 if node.format == "int64" else _INT32
        case "bytes":
            return {"type": "string", "pattern": "^[A-Za-z0-9+/]*={0,2}$"}
        case _:
            return {"type": node.type}


def json_type(value: Any) -> str:
    """A value's type as Go's JSON decoder calls it."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "null"


def _mistyped(node: Node, value: Any, struct: str, go_path: str, field: str) -> Fault:
    """As Go's decoder words it, with the innermost struct and the path without indices."""
    shown = f"number {value}" if node.type == "integer" and json_type(value) == "number" else json_type(value)
    where = f"Go struct field {struct}.{go_path}" if struct else "Go value"
    return Fault(Sort.TYPE, field, f"json: cannot unmarshal {shown} into {where} of type {node.go_type}")


def _walk(
    node: Node, value: Any, field: str, go_path: str, struct: str, depth: int = 0, relaxed: bool = False
) -> Iterator[Fault]:
    if value is None:
        yield Fault(Sort.NULL, field)
        return
    if depth > _NO_LIMIT_DEPTH:
        yield Fault(Sort.TYPE, field, "exceeded max depth")
        return
    match node.type:
        case "object" | "open" | "map":
            if not isinstance(value, dict):
                yield _mistyped(node, value, struct, go_path, field)
            elif node.type == "object":
                yield from _walk_object(node, value, field, go_path, depth, relaxed or is_observed(node.definition))
            elif node.type == "map":
                for key, below in value.items():
                    yield from _walk(node.item, below, causes.at_key(field, key), go_path, struct, depth + 1, relaxed)
        case "array":
            if not isinstance(value, list):
                yield _mistyped(node, value, struct, go_path, field)
            else:
                for index, below in enumerate(value):
                    yield from _walk(node.item, below, f"{field}[{index}]", go_path, struct, depth + 1, relaxed)
        case _:
            yield from _walk_scalar(node, value, field, go_path, struct)


def _walk_object(
    node: Node, value: dict[str, Any], field: str, go_path: str, depth: int, relaxed: bool
) -> Iterator[Fault]:
    limits = CONSTRAINTS.get(short_name(node.definition), {})
    known = node.fields
    for name, below in value.items():
        path = f"{field}.{name}" if field else name
        child = known.get(name)
        if child is None:
            if not node.open_fields:
                yield Fault(Sort.UNKNOWN, path)
            continue
        found = False
        for fault in _walk(
            child, below, path, f"{go_path}.{name}" if go_path else name, node.struct, depth + 1, relaxed
        ):
            found = True
            yield fault
        if name in limits and below is not None and not found:
            for cause in limits[name].check(below, path):
                yield Fault(Sort.VALUE, path, cause=cause)
    for name in () if relaxed else sorted(required_fields(node)):
        below = value.get(name)
        if below is None or below == "" or below == []:
            yield from _missing(node, name, f"{field}.{name}" if field else name, depth)


def _missing(node: Node, name: str, path: str, depth: int) -> Iterator[Fault]:
    """A required field that isn't there. Of an object that itself requires fields, those are what is missing."""
    child = node.fields[name]
    if child.type == "object" and required_fields(child):
        yield from _walk_object(child, {}, path, "", depth + 1, False)
        return
    detail = REQUIRED_DETAIL.get((short_name(node.definition), name), "")
    yield Fault(Sort.VALUE, path, cause=causes.required(path, detail))


def _walk_scalar(node: Node, value: Any, field: str, go_path: str, struct: str) -> Iterator[Fault]:
    sort = json_type(value)
    match node.type:
        case "string":
            wrong = sort != "string"
        case "boolean":
            wrong = sort != "bool"
        case "number":
            wrong = sort != "number"
        case "integer":
            bits = 63 if node.format == "int64" else 31
            wrong = sort != "number" or not isinstance(value, int) or not -(2**bits) <= value < 2**bits
        case "int-or-string":
            wrong = not (sort == "string" or (sort == "number" and isinstance(value, int)))
        case "quantity":
            wrong = sort not in ("string", "number")
            if not wrong and not _quantity(str(value)):
                yield Fault(Sort.TYPE, field, QUANTITY_ERROR)
        case "time" | "micro-time":
            wrong = sort != "string"
            if not wrong and not _time(value):
                yield Fault(
                    Sort.TYPE,
                    field,
                    f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"',
                )
        case "bytes":
            wrong = sort != "string"
            # Line breaks in it are passed over, as Go's decoder does, and taken out when it is stored.
            if not wrong and not _base64(value) and not _base64(canonical.bytes_text(value)):
                yield Fault(Sort.TYPE, field, f"illegal base64 data at input byte {_bad_base64_at(value)}")
        case _:
            wrong = False
    if wrong:
        yield _mistyped(node, value, struct, go_path, field)


QUANTITY_ERROR = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def _bad_base64_at(value: str) -> int:
    for index, char in enumerate(value):
        if not (char.isascii() and (char.isalnum() or char in "+/")):
            return index
    return max(0, len(value) - len(value) % 4)
