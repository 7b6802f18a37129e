"""`x-kubernetes-validations`: compile a schema's rules when its CRD is written, judge objects by them on each write.

A rule sees its value as `self`, and what was there before as `oldSelf` where the two can be told to be the same thing:
fields of objects, entries of maps, items of map-lists. What did not change is not judged again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from machinery import cel
from machinery.api.errors import Cause
from services.apiserver.schema import causes, formats
from services.apiserver.schema.structural import EMBEDDED, INT_OR_STRING, LIST_KEYS, LIST_TYPE, PRESERVE, RULES

Schema = dict[str, Any]

_OLD = re.compile(r"\boldSelf\b").search
_RESERVED = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
        "import", "let",
        "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
_REASONS: dict[str, Callable[[str, Any, str], Cause]] = {
    "FieldValueInvalid": causes.invalid,
    "FieldValueForbidden": lambda field, _value, detail: causes.forbidden(field, detail),
    "FieldValueRequired": lambda field, _value, detail: causes.required(field, detail),
    "FieldValueDuplicate": lambda field, value, _detail: causes.duplicate(field, value),
}
MESSAGE_BYTES_MAX = 5 * 1024

CALL_COST_MAX = 1_000_000
"""Steps that one rule may take over the object at hand."""

COST_MAX = 10_000_000
"""Steps that one rule may be estimated to take over the largest object that its schema allows."""

_OBJECT_BYTES_MAX = 3 * 1024 * 1024
_MACRO = re.compile(r"([\w.?]+(?:\[[^\]]*\])?)\s*\.\s*(all|exists|exists_one|existsOne|map|filter)\s*\(\s*(\w+)\s*,")
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_STEP = re.compile(r"\w+|[=<>!]=|[-+*/%<>!?]|&&|\|\|")
_PATH = re.compile(r"(?<![\w.'\"])(self|oldSelf)((?:\s*\.\s*[A-Za-z_]\w*(?!\w*\s*\())+)")


class CompiledRules:
    """The rules of one schema, compiled when the first object meets them."""

    def __init__(self, schema: Schema) -> None:
        self._root = _Place(schema, root=True)

    def judge(self, obj: Any, old: Any) -> list[Cause]:
        """What the rules have against an object; `old` is what it replaces, None for a new one."""
        found: list[Cause] = []
        self._root.judge(obj, old, "", found, is_update=old is not None)
        return found


class _Place:
    """One schema node with the rules at it and below it."""

    def __init__(self, schema: Schema, *, root: bool = False) -> None:
        self.schema = schema
        self.root = root
        self.rules = [_Rule(rule, schema) for rule in schema.get(RULES) or ()]
        self.fields = {
            name: place for name, below in (schema.get("properties") or {}).items() if (place := _Place(below))
        }
        items, extra = schema.get("items"), schema.get("additionalProperties")
        self.items = _Place(items) if isinstance(items, dict) else None
        self.values = _Place(extra) if isinstance(extra, dict) else None
        self.keys: tuple[str, ...] = tuple(schema.get(LIST_KEYS) or ()) if schema.get(LIST_TYPE) == "map" else ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.fields or self.items or self.values)

    def judge(self, value: Any, old: Any, path: str, found: list[Cause], *, is_update: bool) -> None:
        if value is None:
            return
        if self.rules:
            self._judge_here(value, old, path, found, is_update)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, below in value.items():
                place = self.fields.get(
                    name, self.values if name not in (self.schema.get("properties") or {}) else None
                )
                if place:
                    here = f"{path}.{name}" if path else name
                    place.judge(below, before.get(name), here, found, is_update=is_update)
        elif isinstance(value, list) and self.items:
            before_by_key = self._by_key(old) if self.keys and isinstance(old, list) else {}
            for index, item in enumerate(value):
                was = before_by_key.get(self._key(item)) if self.keys else None
                self.items.judge(item, was, f"{path}[{index}]", found, is_update=is_update)

    def _key(self, item: Any) -> tuple[Any, ...]:
        return tuple(item.get(key) for key in self.keys) if isinstance(item, dict) else ()

    def _by_key(self, items: list[Any]) -> dict[tuple[Any, ...], Any]:
        return {self._key(item): item for item in items}

    def _judge_here(self, value: Any, old: Any, path: str, found: list[Cause], is_update: bool) -> None:
        variables: dict[str, Any] = {}
        for rule in self.rules:
            if rule.needs_old and old is None and not rule.old_is_optional:
                continue
            if not rule.needs_old and is_update and old is not None and old == value:
                continue
            if not variables:
                variables = {"self": convert(self.schema, value, root=self.root)}
                variables["oldSelf"] = convert(self.schema, old, root=self.root) if old is not None else None
            cause = rule.judge(variables, self.schema, path, old is not None)
            if cause is not None:
                found.append(cause)


class _Rule:
    """One rule, compiled on first use."""

    def __init__(self, rule: dict[str, Any], schema: Schema) -> None:
        self.raw = rule
        self.source: str = rule.get("rule") or ""
        self.old_is_optional = bool(rule.get("optionalOldSelf"))
        self.needs_old = bool(_OLD(self.source))
        self.may_be_costly = estimated_cost(self.source, schema) > CALL_COST_MAX

    def judge(self, variables: dict[str, Any], schema: Schema, path: str, has_old: bool) -> Cause | None:
        kind = schema.get("type") or ("integer" if schema.get(INT_OR_STRING) else "object")
        if self.old_is_optional:
            variables = {**variables, "oldSelf__given": has_old}
        if self.may_be_costly and estimated_cost(self.source, schema, variables["self"]) > CALL_COST_MAX:
            return causes.invalid(path, kind, f"call cost exceeds limit for rule: {self.source.strip()}")
        try:
            verdict = _program(self.source, self.old_is_optional).evaluate(variables)
        except cel.CelError as error:
            shown = self.source.strip()
            return causes.invalid(path, kind, f"{error} evaluating rule: {self.raw.get('message') or shown}")
        if verdict is True:
            return None
        field = (path + _field_path(self.raw.get("fieldPath") or "")).lstrip(".")
        cause = _REASONS.get(self.raw.get("reason") or "", causes.invalid)
        return cause(field, kind, self._message(variables))

    def _message(self, variables: dict[str, Any]) -> str:
        expression = self.raw.get("messageExpression")
        if expression:
            try:
                text = _program(expression, self.old_is_optional).evaluate(variables)
            except cel.CelError:
                text = None
            if isinstance(text, str) and text.strip() and "\n" not in text.strip() and len(text) <= MESSAGE_BYTES_MAX:
                return text.strip()
        return self.raw.get("message") or f"failed rule: {self.source.strip()}"


def _program(source: str, old_is_optional: bool) -> cel.Program:
    if old_is_optional:
        # An optional value can't be passed in, so it is made in the expression itself.
        wrapped = f"cel.bind(oldSelf, oldSelf__given ? optional.of(oldSelf) : optional.none(), {source})"
        return cel.compile(wrapped, ("self", "oldSelf", "oldSelf__given"))
    return cel.compile(source, ("self", "oldSelf"))


def _field_path(path: str) -> str:
    """`.spec['a']` as field paths are written."""
    return re.sub(r"\['([^']*)'\]", r"[\1]", path)


def escaped(name: str) -> str:
    """A property's name as an identifier of CEL."""
    if name in _RESERVED:
        return f"__{name}__"
    out = name.replace("__", "__underscores__")
    return out.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")


def convert(schema: Schema, value: Any, *, root: bool = False) -> Any:
    """A JSON value as CEL sees it through its schema: times and durations typed, names escaped, numbers as doubles."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        if root or schema.get(EMBEDDED):
            value = _with_short_metadata(value)
        out: dict[str, Any] = {}
        for name, below in value.items():
            child = properties.get(name)
            if child is not None:
                if below is not None or child.get("nullable"):
                    out[escaped(name)] = convert(child, below)
            elif isinstance(extra, dict):
                out[name] = convert(extra, below)
            else:
                out[name] = below
        return out
    if isinstance(value, list):
        items = schema.get("items")
        return [convert(items, item) for item in value] if isinstance(items, dict) else value
    if isinstance(value, str):
        return _typed_text(schema.get("format") or "", value)
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _with_short_metadata(value: dict[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        return value
    return {**value, "metadata": {name: metadata[name] for name in ("name", "generateName") if name in metadata}}


def _typed_text(kind: str, text: str) -> Any:
    try:
        if kind in ("date-time", "datetime"):
            stamp = timestamp_pb2.Timestamp()
            stamp.FromDatetime(formats.parse_date_time(text))
            return stamp
        if kind == "date":
            stamp = timestamp_pb2.Timestamp()
            stamp.FromJsonString(f"{text}T00:00:00Z")
            return stamp
        if kind == "duration":
            span = duration_pb2.Duration()
            span.FromTimedelta(formats.parse_duration(text))
            return span
    except ValueError:
        return text
    return text


def problems(schema: Schema, path: str) -> list[Cause]:
    """What is wrong with the rules of a schema that stands at `path` in its CRD: they don't compile, or could cost too
    much.
    """
    found: list[Cause] = []
    _check(schema, path, found, correlatable=True, times=1, root=True)
    return found


def _check(
    schema: Schema, path: str, found: list[Cause], *, correlatable: bool, times: int, root: bool = False
) -> None:
    for index, rule in enumerate(schema.get(RULES) or ()):
        found += _check_rule(rule, schema, f"{path}.{RULES}[{index}]", correlatable, times, root)
    for name, below in (schema.get("properties") or {}).items():
        _check(below, f"{path}.properties[{name}]", found, correlatable=correlatable, times=times)
    items, extra = schema.get("items"), schema.get("additionalProperties")
    if isinstance(items, dict):
        keyed = schema.get(LIST_TYPE) == "map"
        more = times * _count(schema)
        _check(items, f"{path}.items", found, correlatable=correlatable and keyed, times=more)
    if isinstance(extra, dict):
        more = times * _count(schema)
        _check(extra, f"{path}.additionalProperties", found, correlatable=correlatable, times=more)


def _check_rule(
    rule: dict[str, Any], schema: Schema, path: str, correlatable: bool, times: int, root: bool
) -> list[Cause]:
    source = rule.get("rule") or ""
    if not source.strip():
        return [causes.required(f"{path}.rule", "rule is not specified")]
    optional = bool(rule.get("optionalOldSelf"))
    found: list[Cause] = []
    for field, wanted in (("rule", "bool"), ("messageExpression", "string")):
        text = rule.get(field)
        if not text:
            continue
        try:
            kind = _program(text, optional).type_name.lower()
        except cel.CelError as error:
            found.append(causes.invalid(f"{path}.{field}", text, str(error)))
            continue
        if unknown := undefined_field(text, schema, root=root):
            found.append(causes.invalid(f"{path}.{field}", text, f"compilation failed: undefined field '{unknown}'"))
        if kind not in (wanted, "dyn", "*dyn*"):
            found.append(causes.invalid(f"{path}.{field}", text, f"{field} must evaluate to a {wanted}, but is {kind}"))
    if _OLD(source) and not correlatable:
        detail = "oldSelf cannot be used on the uncorrelatable portion of the schema"
        found.append(causes.invalid(f"{path}.rule", source, detail))
    cost = times * estimated_cost(source, schema)
    if cost > COST_MAX:
        factor = "more than 100x" if cost > 100 * COST_MAX else f"{cost / COST_MAX:.1f}x"
        detail = (
            f"estimated rule cost exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, "
            "maxProperties, and maxLength where arrays, maps, and strings are declared)"
        )
        found.append(causes.forbidden(f"{path}.rule", detail))
    return found


def _smallest_bytes(schema: Schema) -> int:
    """The least that a value takes in JSON, with its comma."""
    match schema.get("type"):
        case "object":
            required = set(schema.get("required") or ())
            below = schema.get("properties") or {}
            return 3 + sum(len(name) + 4 + _smallest_bytes(below[name]) for name in required if name in below)
        case "boolean":
            return 5
        case "string" | "array":
            return 3
        case _:
            return 2


def _count(schema: Schema) -> int:
    """How many items a list or map can have."""
    limit = schema.get("maxItems", schema.get("maxProperties"))
    if limit is not None:
        return int(limit)
    items = schema.get("items") or schema.get("additionalProperties")
    return _OBJECT_BYTES_MAX // _smallest_bytes(items if isinstance(items, dict) else {})


def estimated_cost(source: str, schema: Schema, value: Any = None) -> int:
    """A rough upper bound of the steps of a rule: each loop's body counts as often as its list can be long.

    With a `value` of that schema, as often as its lists are long.
    """
    start = (schema, value)
    return max(1, _cost(_TEXT.sub("''", source), {"self": start, "oldSelf": start}, actual=value is not None))


def _cost(source: str, scope: dict[str, tuple[Schema, Any]], *, actual: bool) -> int:
    total, position = 1, 0
    while (found := _MACRO.search(source, position)) is not None:
        total += len(_STEP.findall(source, position, found.start()))
        end = _closing(source, found.end())
        body = source[found.end() : end]
        over, value = _resolve(found[1], scope)
        below = over.get("items")
        # The keys of a map are strings; of an unknown list nothing is known.
        inner: Schema = below if isinstance(below, dict) else {}
        if actual:
            times = len(value) if isinstance(value, list | dict) else 1
        else:
            times = _count(over) if over.get("type") in ("array", "object") else 1
        item = max(value, key=_length, default=None) if isinstance(value, list) else None
        total += times * _cost(body, {**scope, found[3]: (inner, item)}, actual=actual)
        position = end
    return total + len(_STEP.findall(source, position))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _closing(source: str, start: int) -> int:
    depth = 1
    for index in range(start, len(source)):
        depth += {"(": 1, ")": -1}.get(source[index], 0)
        if not depth:
            return index
    return len(source)


def _resolve(path: str, scope: dict[str, tuple[Schema, Any]]) -> tuple[Schema, Any]:
    """The schema, and the value where there is one, that a path such as `self.spec.items` leads to."""
    head, *rest = path.replace("?", "").split(".")
    schema, value = scope.get(head, ({}, None))
    for name in rest:
        below = _by_identifier(schema).get(name)
        if not isinstance(below, dict):
            return {}, None
        schema = below
        value = value.get(name) if isinstance(value, dict) else None
    return schema, value


def _by_identifier(schema: Schema) -> dict[str, Schema]:
    """The properties of an object by their names in CEL."""
    return {escaped(name): below for name, below in (schema.get("properties") or {}).items()}


def undefined_field(source: str, schema: Schema, *, root: bool = False) -> str:
    """The first field that a rule names and its schema doesn't have; the empty string if there is none.

    The C++ checker sees values of dynamic type and can't know, so the paths from `self` are followed here.
    """
    for found in _PATH.finditer(_TEXT.sub("''", source)):
        here, at_root = schema, root
        for name in re.findall(r"\w+", found[2]):
            if (
                here.get("type") != "object"
                or here.get(PRESERVE)
                or here.get(EMBEDDED)
                or "additionalProperties" in here
            ):
                break
            known = _by_identifier(here)
            if at_root and name == "metadata":
                break
            if name not in known and not (at_root and name in ("apiVersion", "kind")):
                return str(name)
            here, at_root = known.get(name, {}), False
    return ""
