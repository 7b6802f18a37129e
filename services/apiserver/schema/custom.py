"""One served version of a custom resource: prune, default and judge its objects by the CRD's structural schema.

`CustomSchema` is made once a version. As with built-in kinds, a compiled validator says yes in microseconds, and only
what it refuses is walked in Python for the reasons; lists that are sets or maps, formats and CEL rules are looked at
only where the schema has any. Messages are worded as the validators behind apiextensions-apiserver word them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs

from machinery.api.errors import BadRequest, Cause
from services.apiserver.schema import causes, fields, formats, patterns
from services.apiserver.schema.definitions import OBJECT_META, Node, node_named
from services.apiserver.schema.structural import EMBEDDED, INT_OR_STRING, LIST_KEYS, LIST_TYPE, PRESERVE, RULES
from services.apiserver.schema.structure import Sort, json_type, walk

Obj = dict[str, Any]
Schema = dict[str, Any]

_PASSED_ON = (
    "enum", "format", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern",
    "maxItems", "minItems", "multipleOf", "maxProperties", "minProperties", "required", "allOf", "anyOf", "oneOf",
    "not",
)  # fmt: skip
_IDENTITY: Schema = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object", PRESERVE: True},
}
DEPTH_MAX = 512
"""Objects nested deeper than this are refused before they are walked."""


class CustomSchema:
    """What a CRD version's schema says of objects. `kind` and `version` stand in messages; without a schema all is
    kept.
    """

    def __init__(self, schema: Schema | None, *, kind: str, version: str) -> None:
        self.kind = kind
        self.version = version
        self.schema: Schema = _rooted(copy.deepcopy(schema) if schema else {"type": "object", PRESERVE: True})
        self._validator: Any = None
        self._node: Node | None = None
        self._looks_closer = _mentions(self.schema, (LIST_TYPE, "format", "pattern"))
        self._defaults = _mentions(self.schema, ("default",))
        self._rules: Any = None
        self._has_rules = _mentions(self.schema, (RULES,))

    @property
    def has_defaults(self) -> bool:
        """Whether any field has a default."""
        return self._defaults

    @property
    def node(self) -> Node:
        """The schema as server-side apply and printers walk it."""
        if self._node is None:
            self._node = Node(self.schema)
            self._node.fields["metadata"] = node_named(OBJECT_META)
        return self._node

    def is_sound(self, obj: Obj) -> bool:
        """Nothing unknown in the object, and every value validation holds (formats, list types and rules aside)."""
        if self._validator is None:
            document = {"$schema": "http://json-schema.org/draft-04/schema#", **_judged(self.schema, root=True)}
            self._validator = jsonschema_rs.Draft4Validator(document, pattern_options=patterns.LINEAR)
        sound: bool = self._validator.is_valid(obj)
        return sound

    def take_in(self, obj: Obj, field_validation: str = "Warn", duplicates: Sequence[str] = ()) -> list[str]:
        """Prune unknown fields in place; warnings, or BadRequest for Strict. Metadata is decoded as every kind's is.

        `duplicates` are paths of keys that stood twice in the body's text; they are named after the unknown fields.
        """
        try:
            unknown = _take_in_metadata(obj, "")
            if not self.is_sound(obj):
                unknown += prune(self.schema, obj, "")
        except _Undecodable as error:
            raise self._undecodable(str(error)) from error
        problems = [f'unknown field "{path}"' for path in unknown] + [
            f'duplicate field "{path}"' for path in duplicates
        ]
        problems = problems[: causes.PROBLEMS_MAX]
        if problems and field_validation == "Strict":
            raise self._undecodable("strict decoding error: " + ", ".join(problems))
        return [] if field_validation == "Ignore" else problems

    def _undecodable(self, why: str) -> BadRequest:
        return BadRequest(f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}: {why}')

    def default(self, obj: Obj) -> None:
        """Fill in the schema's defaults, in place."""
        if self._defaults:
            default(self.schema, obj)

    def validate_create(self, obj: Obj) -> list[Cause]:
        """Everything that the schema has against an object (its metadata's own rules aside)."""
        return self._judge(obj, None)

    def validate_update(self, new: Obj, old: Obj) -> list[Cause]:
        """The same with `oldSelf` known; what did not change and was wrong before is forgiven (ratcheting)."""
        return self._judge(new, old)

    def _judge(self, obj: Obj, old: Obj | None) -> list[Cause]:
        found: list[Cause] = []
        if not self.is_sound(obj):
            found = list(judge(self.schema, obj, "", old=old))
        if self._looks_closer:
            found += closer(self.schema, obj, "", old=old)
        if self._has_rules and not any(cause.reason == "FieldValueTypeInvalid" for cause in found):
            found += self._compiled_rules().judge(obj, old)
        return found

    def _compiled_rules(self) -> Any:
        if self._rules is None:
            from services.apiserver.schema.rules_cel import CompiledRules

            self._rules = CompiledRules(self.schema)
        return self._rules


class _Undecodable(Exception):
    """Metadata that can't be read; the message is the decoder's."""


def _take_in_metadata(obj: Obj, path: str) -> list[str]:
    """Decode the metadata of an object, in place; the paths of fields that no metadata has."""
    metadata = obj.get("metadata")
    if metadata is None:
        return []
    here = f"{path}.metadata" if path else "metadata"
    if not isinstance(metadata, dict):
        kind = json_type(metadata)
        raise _Undecodable(f"json: cannot unmarshal {kind} into Go struct field .{here} of type v1.ObjectMeta")
    node = node_named(OBJECT_META)
    unknown: list[str] = []
    dirty = False
    for fault in walk(node, metadata, here):
        if fault.sort is Sort.TYPE:
            raise _Undecodable(fault.message)
        dirty = dirty or fault.sort in (Sort.UNKNOWN, Sort.NULL)
        if fault.sort is Sort.UNKNOWN:
            unknown.append(fault.field)
    if dirty:
        fields.clean(node, metadata)
    return unknown


def _rooted(schema: Schema) -> Schema:
    """A root always has an identity."""
    schema["properties"] = {**_IDENTITY, **(schema.get("properties") or {})}
    schema["properties"]["metadata"] = _IDENTITY["metadata"]
    return schema


def _mentions(schema: Any, keys: tuple[str, ...]) -> bool:
    if isinstance(schema, list):
        return any(_mentions(one, keys) for one in schema)
    if not isinstance(schema, dict):
        return False
    if any(key in schema and not isinstance(schema[key], dict) for key in keys) or (
        "default" in keys and "default" in schema
    ):
        return True
    return any(_mentions(value, keys) for key, value in schema.items() if key != "enum")


def _judged(schema: Schema, *, root: bool = False) -> Schema:
    """The JSON schema that the compiled validator judges by."""
    out: Schema = {key: schema[key] for key in _PASSED_ON if key in schema and key != "format"}
    _drop_foreign_pattern(out)
    for name in ("allOf", "anyOf", "oneOf"):
        if name in out:
            out[name] = [_loose(one) for one in out[name]]
    if "not" in out:
        out["not"] = _loose(out["not"])
    declared = schema.get("type")
    if schema.get(INT_OR_STRING):
        out["type"] = ["integer", "string"]
    elif declared:
        out["type"] = [declared]
    if schema.get("nullable") and "type" in out:
        out["type"] = [*out["type"], "null"]
    properties = dict(schema.get("properties") or {})
    if schema.get(EMBEDDED):
        # Its metadata has to be looked into, so that no object with one is sound at first sight.
        properties = {**_IDENTITY, **properties, "metadata": {"type": "object", "maxProperties": 0}}
    if properties:
        out["properties"] = {name: _judged(below) for name, below in properties.items()}
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        out["additionalProperties"] = _judged(extra)
    elif declared == "object" and not schema.get(PRESERVE) and extra is not True:
        out["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        out["items"] = _judged(schema["items"])
    return out


def _drop_foreign_pattern(out: Schema) -> None:
    """A pattern that the validator's engine doesn't take is judged by `closer`."""
    if "pattern" in out and patterns.compiled(out["pattern"]) is None:
        del out["pattern"]


def _loose(schema: Schema) -> Schema:
    """A nested value validation: it judges values and never fields that it doesn't name."""
    out = {key: value for key, value in schema.items() if key in _PASSED_ON and key != "format"}
    _drop_foreign_pattern(out)
    if "type" in schema:
        out["type"] = schema["type"]
    if schema.get("properties"):
        out["properties"] = {name: _loose(below) for name, below in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        out["items"] = _loose(schema["items"])
    for name in ("allOf", "anyOf", "oneOf"):
        if name in out:
            out[name] = [_loose(one) for one in out[name]]
    if "not" in out:
        out["not"] = _loose(out["not"])
    return out


def _properties(schema: Schema) -> dict[str, Schema]:
    properties: dict[str, Schema] = schema.get("properties") or {}
    # An embedded object's metadata is decoded as metadata, whatever its schema names of it.
    return {**_IDENTITY, **properties, "metadata": _IDENTITY["metadata"]} if schema.get(EMBEDDED) else properties


def prune(schema: Schema, value: Any, path: str, depth: int = 0) -> list[str]:
    """Drop fields that the schema doesn't name, in place; their paths. `x-kubernetes-preserve-unknown-fields` keeps
    them.
    """
    found: list[str] = []
    if depth > DEPTH_MAX:
        raise BadRequest("the object is nested too deeply")
    if isinstance(value, dict):
        if schema.get(EMBEDDED):
            found += _take_in_metadata(value, path)
        properties, extra = _properties(schema), schema.get("additionalProperties")
        keep = schema.get(PRESERVE) or extra is True
        for name in list(value):
            here = f"{path}.{name}" if path else name
            below = properties.get(name)
            if below is None and isinstance(extra, dict):
                below, here = extra, f"{path}.{name}"
            if below is not None:
                found += prune(below, value[name], here, depth + 1)
            elif not keep:
                found.append(here)
                del value[name]
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            found += prune(schema["items"], item, f"{path}[{index}]", depth + 1)
    return found


def default(schema: Schema, value: Any) -> None:
    """Fill in defaults below a value, in place; a null where none may be counts as absent if there is a default."""
    if isinstance(value, dict):
        for name, below in (schema.get("properties") or {}).items():
            if "default" in below and (name not in value or (value[name] is None and not below.get("nullable"))):
                value[name] = copy.deepcopy(below["default"])
            if value.get(name) is not None:
                default(below, value[name])
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            known = schema.get("properties") or {}
            for name, below in value.items():
                if name not in known:
                    default(extra, below)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            default(schema["items"], item)


def judge(schema: Schema, value: Any, path: str, *, old: Any = None) -> Iterator[Cause]:
    """Each value validation that a value breaks. `old` is the value before; equal to it, nothing is reported."""
    if old is not None and old == value and path:
        return
    where = path or "<nil>"
    if value is None:
        if not schema.get("nullable") and (schema.get("type") or schema.get(INT_OR_STRING)):
            kind = schema.get("type") or "integer,string"
            yield causes.type_invalid(path, "null", f'{where} in body must be of type {kind}: "null"')
        return
    declared = schema.get("type")
    if not _is_of(schema, value):
        kind = declared or "integer,string"
        shown = _TYPE_NAMES[type(value)]
        yield causes.type_invalid(path, shown, f'{where} in body must be of type {kind}: "{shown}"')
        return
    yield from _values(schema, value, path, where)
    if isinstance(value, dict):
        for name in schema.get("required") or ():
            if name not in value:
                yield causes.required(f"{path}.{name}" if path else name)
        properties, extra = _properties(schema), schema.get("additionalProperties")
        for name, below in value.items():
            child = properties.get(name, extra if isinstance(extra, dict) else None)
            if child is not None:
                before = old.get(name) if isinstance(old, dict) else None
                yield from judge(child, below, f"{path}.{name}" if path else name, old=before)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            before = old[index] if isinstance(old, list) and index < len(old) else None
            yield from judge(schema["items"], item, f"{path}[{index}]", old=before)


_TYPE_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def _is_of(schema: Schema, value: Any) -> bool:
    if schema.get(INT_OR_STRING):
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    match schema.get("type"):
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return True


def _values(schema: Schema, value: Any, path: str, where: str) -> Iterator[Cause]:
    if "enum" in schema and value not in schema["enum"]:
        # In the order in which the schema lists them, other than built-in enumerations.
        listed = ", ".join(json.dumps(one) for one in schema["enum"])
        message = f"Unsupported value: {json.dumps(value)}: supported values: {listed}"
        yield Cause("FieldValueNotSupported", message, path)
    if isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        yield from _numbers(schema, value, path, where)
    elif isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            yield causes.too_long(path, schema["maxLength"])
        if len(value) < schema.get("minLength", 0):
            yield causes.invalid(path, value, f"{where} in body should be at least {schema['minLength']} chars long")
        if (
            "pattern" in schema
            and patterns.compiled(schema["pattern"])
            and not patterns.matches(schema["pattern"], value)
        ):
            yield causes.invalid(path, value, f"{where} in body should match '{schema['pattern']}'")
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield causes.too_many(path, len(value), schema["maxItems"])
        if len(value) < schema.get("minItems", 0):
            yield causes.invalid(path, len(value), f"{where} in body should have at least {schema['minItems']} items")
    elif isinstance(value, dict):
        if len(value) > schema.get("maxProperties", len(value)):
            yield causes.too_many(path, len(value), schema["maxProperties"])
        if len(value) < schema.get("minProperties", 0):
            detail = f"{where} in body should have at least {schema['minProperties']} properties"
            yield causes.invalid(path, len(value), detail)
    yield from _junctors(schema, value, path, where)


def _numbers(schema: Schema, value: float, path: str, where: str) -> Iterator[Cause]:
    if "minimum" in schema:
        strict = schema.get("exclusiveMinimum") is True
        if value < schema["minimum"] or (strict and value == schema["minimum"]):
            bound = "greater than" if strict else "greater than or equal to"
            yield causes.invalid(path, value, f"{where} in body should be {bound} {schema['minimum']}")
    if "maximum" in schema:
        strict = schema.get("exclusiveMaximum") is True
        if value > schema["maximum"] or (strict and value == schema["maximum"]):
            bound = "less than" if strict else "less than or equal to"
            yield causes.invalid(path, value, f"{where} in body should be {bound} {schema['maximum']}")
    if schema.get("multipleOf") and value % schema["multipleOf"]:
        yield causes.invalid(path, value, f"{where} in body should be a multiple of {schema['multipleOf']}")


def _holds(schema: Schema, value: Any) -> bool:
    return bool(jsonschema_rs.Draft4Validator(_loose(schema), pattern_options=patterns.LINEAR).is_valid(value))


def _junctors(schema: Schema, value: Any, path: str, where: str) -> Iterator[Cause]:
    for nested in schema.get("allOf") or ():
        if not _holds(nested, value):
            yield from judge({**nested, "type": schema.get("type")}, value, path)
    if schema.get("anyOf") and not any(_holds(one, value) for one in schema["anyOf"]):
        yield causes.invalid(path, "", f'"{where}" must validate at least one schema (anyOf)')
    if schema.get("oneOf"):
        count = sum(_holds(one, value) for one in schema["oneOf"])
        if count != 1:
            outcome = "Found none valid" if not count else f"Found {count} valid alternatives"
            yield causes.invalid(path, "", f'"{where}" must validate one and only one schema (oneOf). {outcome}')
    if schema.get("not") is not None and _holds(schema["not"], value):
        yield causes.invalid(path, "", f'"{where}" must not validate the schema (not)')


def closer(schema: Schema, value: Any, path: str, *, old: Any = None) -> list[Cause]:
    """Formats, patterns that the validator doesn't speak, and the uniqueness of sets and of map-lists' keys."""
    found: list[Cause] = []
    if isinstance(value, str):
        check = formats.FORMATS.get(schema.get("format") or "")
        if check is not None and not check(value) and value != old:
            kind = schema["format"]
            found.append(causes.invalid(path, value, f'{path} in body must be of type {kind}: "{value}"'))
        pattern = schema.get("pattern")
        if pattern is not None and patterns.compiled(pattern) is None and not patterns.matches(pattern, value):
            found.append(causes.invalid(path, value, f"{path} in body should match '{pattern}'"))
    elif isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, below in value.items():
            child = properties.get(name, extra if isinstance(extra, dict) else None)
            if child is not None:
                before = old.get(name) if isinstance(old, dict) else None
                found += closer(child, below, f"{path}.{name}" if path else name, old=before)
    elif isinstance(value, list):
        found += _unique(schema, value, path)
        for index, item in enumerate(value):
            if isinstance(schema.get("items"), dict):
                before = old[index] if isinstance(old, list) and index < len(old) else None
                found += closer(schema["items"], item, f"{path}[{index}]", old=before)
    return found


def _unique(schema: Schema, items: list[Any], path: str) -> list[Cause]:
    kind = schema.get(LIST_TYPE)
    if kind not in ("set", "map"):
        return []
    found: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        keyed = item
        if kind == "map":
            if not isinstance(item, dict):
                continue
            keyed = {key: item[key] for key in schema.get(LIST_KEYS) or () if key in item}
        text = json.dumps(keyed, sort_keys=True)
        if text in seen:
            found.append(causes.duplicate(f"{path}[{index}]", keyed))
        seen.add(text)
    return found
