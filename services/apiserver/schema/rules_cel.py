"""`x-kubernetes-validations`: judge objects by a schema's rules on each write. Which rules may be written is judged by
`rules_check`, what they may cost by `rules_cost`.

A rule sees its value as `self`, and what was there before as `oldSelf` where the two can be told to be the same thing:
fields of objects, entries of maps, items of map-lists. What did not change is not judged again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from machinery import cel
from machinery.api.errors import Cause
from machinery.cel import costs, sizes, tree
from machinery.cel.budget import Budget
from machinery.cel.errors import CostExceeded, OutOfBudget
from machinery.cel.shapes import DYN, Shape, Values
from machinery.cel.tree import mentions
from machinery.cel.typed import escaped
from services.apiserver.schema import causes, formats, rules_cost
from services.apiserver.schema.structural import EMBEDDED, INT_OR_STRING, LIST_KEYS, LIST_TYPE, RULES

Schema = dict[str, Any]

REASONS: dict[str, Callable[[str, Any, str], Cause]] = {
    "FieldValueInvalid": causes.invalid,
    "FieldValueForbidden": lambda field, _value, detail: causes.forbidden(field, detail),
    "FieldValueRequired": lambda field, _value, detail: causes.required(field, detail),
    "FieldValueDuplicate": lambda field, value, _detail: causes.duplicate(field, value),
}
MESSAGE_BYTES_MAX = 5 * 1024

_MEASURED_FROM = costs.PER_OBJECT_MAX // 100
"""Rules that may cost so much in one object are measured over the values at hand; of others a hundred fit anyway."""


class CompiledRules:
    """The rules of one schema, compiled when the first object meets them."""

    def __init__(self, schema: Schema) -> None:
        self._root = _Place(schema, rules_cost.shape_of(schema, root=True), 1, root=True)

    def judge(self, obj: Any, old: Any) -> list[Cause]:
        """What the rules have against an object; `old` is what it replaces, None for a new one."""
        verdict = _Verdict(is_update=old is not None)
        self._root.judge(obj, old, "", verdict)
        return verdict.found


@dataclass(slots=True)
class _Verdict:
    """What was found so far, and what the rules that are left may cost."""

    is_update: bool
    found: list[Cause] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)
    ended: bool = False

    def end(self, cause: Cause) -> None:
        self.found.append(cause)
        self.ended = True


class _Place:
    """One schema node with the rules at it and below it. It can stand `times` in an object, None for any number."""

    def __init__(self, schema: Schema, shape: Shape | None, times: int | None, *, root: bool = False) -> None:
        self.schema = schema
        self.root = root
        self.rules = [_Rule(rule, schema, shape or DYN, times) for rule in schema.get(RULES) or ()]
        below = rules_cost.times_below(schema, times)
        self.fields = {
            name: place
            for name, one in (schema.get("properties") or {}).items()
            if (place := _Place(one, shape and shape.fields.get(escaped(name)), times))
        }
        items, extra = schema.get("items"), schema.get("additionalProperties")
        inner = shape and shape.item
        self.items = _Place(items, inner, below) if isinstance(items, dict) else None
        self.values = _Place(extra, inner, below) if isinstance(extra, dict) else None
        self.keys: tuple[str, ...] = tuple(schema.get(LIST_KEYS) or ()) if schema.get(LIST_TYPE) == "map" else ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.fields or self.items or self.values)

    def judge(self, value: Any, old: Any, path: str, verdict: _Verdict) -> None:
        if value is None or verdict.ended:
            return
        if self.rules:
            self._judge_here(value, old, path, verdict)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, below in value.items():
                place = self.fields.get(
                    name, self.values if name not in (self.schema.get("properties") or {}) else None
                )
                if place:
                    place.judge(below, before.get(name), f"{path}.{name}" if path else name, verdict)
        elif isinstance(value, list) and self.items:
            before_by_key = self._by_key(old) if self.keys and isinstance(old, list) else {}
            for index, item in enumerate(value):
                was = before_by_key.get(self._key(item)) if self.keys else None
                self.items.judge(item, was, f"{path}[{index}]", verdict)

    def _key(self, item: Any) -> tuple[Any, ...]:
        return tuple(item.get(key) for key in self.keys) if isinstance(item, dict) else ()

    def _by_key(self, items: list[Any]) -> dict[tuple[Any, ...], Any]:
        return {self._key(item): item for item in items}

    def _judge_here(self, value: Any, old: Any, path: str, verdict: _Verdict) -> None:
        variables: dict[str, Any] = {}
        for rule in self.rules:
            if rule.needs_old and old is None and not rule.old_is_optional:
                continue
            if not rule.needs_old and verdict.is_update and old is not None and old == value:
                continue
            if not variables:
                variables = {"self": convert(self.schema, value, root=self.root)}
                variables["oldSelf"] = convert(self.schema, old, root=self.root) if old is not None else None
            rule.judge(variables, path, old is not None, verdict)
            if verdict.ended:
                return


class _Expression:
    """A rule's or its message's, compiled on first use. It is charged before it is evaluated."""

    def __init__(self, source: str, shape: Shape, times: int | None, old_is_optional: bool) -> None:
        self.source = source
        self._shape = shape
        self._times = rules_cost.total(1, times, shape)
        self._old_is_optional = old_is_optional

    @property
    def tree(self) -> tree.Node:
        """Its syntax tree. CelError if it doesn't compile."""
        return cel.compile(self.source, ("self", "oldSelf")).tree

    @functools.cached_property
    def _most(self) -> int:
        """What one evaluation is estimated to cost at most."""
        return estimated(self.tree, self._shape, self._old_is_optional)

    def evaluate(self, variables: dict[str, Any], budget: Budget) -> Any:
        """The value. Raises OutOfBudget, CostExceeded, and CelError if evaluation fails."""
        program = program_of(self.source, self._old_is_optional)
        budget.spend(self._cost(variables))
        return program.evaluate(variables)

    def _cost(self, variables: dict[str, Any]) -> int:
        """What this evaluation is charged: measured only where the estimate is of weight."""
        if self._most <= costs.PER_CALL_MAX and self._most * self._times <= _MEASURED_FROM:
            return self._most
        at_hand: dict[str, Shape] = {name: Values([variables[name]]) for name in ("self", "oldSelf")}
        if self._old_is_optional:
            at_hand["oldSelf"] = optional(at_hand["oldSelf"])
        room = sizes.deep_size(variables, sizes.INPUT_BYTES_MAX)
        return min(self._most, costs.measure(self.tree, at_hand, room))


class _Rule:
    """One rule."""

    def __init__(self, rule: dict[str, Any], schema: Schema, shape: Shape, times: int | None) -> None:
        self.raw = rule
        self.source: str = rule.get("rule") or ""
        self.old_is_optional = bool(rule.get("optionalOldSelf"))
        self._kind = schema.get("type") or ("integer" if schema.get(INT_OR_STRING) else "object")
        self._expression = _Expression(self.source, shape, times, self.old_is_optional)
        message = rule.get("messageExpression")
        self._message_expression = _Expression(message, shape, times, self.old_is_optional) if message else None

    @functools.cached_property
    def needs_old(self) -> bool:
        """Whether the rule compares with what was there."""
        try:
            return mentions(self._expression.tree, "oldSelf")
        except cel.CelError:
            return False

    def judge(self, variables: dict[str, Any], path: str, has_old: bool, verdict: _Verdict) -> None:
        """Add what the rule has against a value."""
        shown = self.raw.get("message") or self.source.strip()
        if self.old_is_optional:
            variables = {**variables, "oldSelf__given": has_old}
        try:
            holds = self._expression.evaluate(variables, verdict.budget)
        except OutOfBudget as error:
            verdict.end(causes.invalid(path, self._kind, str(error)))
            return
        except CostExceeded as error:
            why = "no further validation rules will be run due to call cost exceeds limit for rule"
            verdict.end(causes.invalid(path, self._kind, f"'{error}': {why}: {shown}"))
            return
        except cel.CelError as error:
            verdict.found.append(causes.invalid(path, self._kind, f"{error} evaluating rule: {shown}"))
            return
        if holds is not True:
            at = (path + _field_path(self.raw.get("fieldPath") or "")).lstrip(".")
            cause = REASONS.get(self.raw.get("reason") or "", causes.invalid)
            verdict.found.append(cause(at, self._kind, self._message(variables, verdict.budget)))

    def _message(self, variables: dict[str, Any], budget: Budget) -> str:
        if self._message_expression is not None:
            try:
                text = self._message_expression.evaluate(variables, budget)
            except cel.CelError:
                text = None
            if isinstance(text, str) and text.strip() and "\n" not in text.strip() and len(text) <= MESSAGE_BYTES_MAX:
                return text.strip()
        return self.raw.get("message") or f"failed rule: {self.source.strip()}"


def estimated(expression: tree.Node, shape: Shape, old_is_optional: bool) -> int:
    """What an expression is estimated to cost at most, over any value of a shape."""
    return costs.estimate(expression, shape, {"oldSelf": optional(shape)} if old_is_optional else {}).most


def optional(shape: Shape) -> Shape:
    """An `oldSelf` that may be missing. Its bounds are found as if it were there."""
    return Shape("optional", shape, fields=shape.fields, elements_max=shape.elements_max)


def program_of(source: str, old_is_optional: bool) -> cel.Program:
    """A rule or a message's expression, ready to be evaluated. CelError if it doesn't compile."""
    if old_is_optional:
        # An optional value can't be passed in, so it is made in the expression itself.
        wrapped = f"cel.bind(oldSelf, oldSelf__given ? optional.of(oldSelf) : optional.none(), {source})"
        return cel.compile(wrapped, ("self", "oldSelf", "oldSelf__given"))
    return cel.compile(source, ("self", "oldSelf"))


def _field_path(path: str) -> str:
    """`.spec['a']` as field paths are written."""
    return re.sub(r"\['([^']*)'\]", r"[\1]", path)


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
