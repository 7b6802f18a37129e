"""Label and field selectors: parsed once, matched often.

A label selector is a conjunction of requirements. Its text form is that of the REST API
(`app=web,tier in (a,b),!legacy`); its object form is meta_v1.LabelSelector. Text that is not a selector raises
BadRequest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from machinery.api import labels as rules
from machinery.api.errors import BadRequest


class Requirement(msgspec.Struct, frozen=True):
    """One condition on one label. `operator` is in, notin, exists, !, gt or lt; `values` are sorted."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy this condition."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return _compares(value, self.operator, self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "gt":
                return f"{self.key}>{self.values[0]}"
            case "lt":
                return f"{self.key}<{self.values[0]}"
            case "in" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "notin" if len(self.values) == 1:
                return f"{self.key}!={self.values[0]}"
            case _:
                return f"{self.key} {self.operator} ({','.join(self.values)})"


def _compares(value: str | None, operator: str, bound: str) -> bool:
    if value is None or not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
        return False
    return int(value) > int(bound) if operator == "gt" else int(value) < int(bound)


class LabelSelector(msgspec.Struct, frozen=True):
    """A conjunction of requirements; with `never` it selects nothing."""

    requirements: tuple[Requirement, ...] = ()
    never: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        if self.never:
            return False
        present = labels or {}
        return all(requirement.matches(present) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements and not self.never

    def exact(self) -> dict[str, str]:
        """The labels that every selected object has with exactly one possible value: what an index can use."""
        return {r.key: r.values[0] for r in self.requirements if r.operator == "in" and len(r.values) == 1}

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


_EVERYTHING = LabelSelector()
_NOTHING = LabelSelector(never=True)


def everything() -> LabelSelector:
    """Selects every object."""
    return _EVERYTHING


def nothing() -> LabelSelector:
    """Selects no object."""
    return _NOTHING


# --- text to label selector -------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!<>(),])|([^ \t\r\n=!<>(),]+)|$)")
_PUNCTUATION = frozenset(("==", "!=", "=", "!", "<", ">", "(", ")", ","))
_OPERATOR_WORDS = "in, notin, =, ==, !=, gt, lt"
_SIGNS = {"=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt", "in": "in", "notin": "notin"}


def _tokens(text: str) -> list[str]:
    """The words and signs of a selector; the empty one is its end."""
    tokens: list[str] = []
    at = 0
    while not tokens or tokens[-1]:
        found = _TOKEN.match(text, at)
        assert found is not None, "every character is a space, a sign or part of a word"
        tokens.append(found[1] or found[2] or "")
        at = found.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens, with upstream's words for what is wrong (k8s.io/apimachinery/pkg/labels)."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0

    def parse(self) -> tuple[Requirement, ...]:
        out = []
        while self._peek():
            if not self._begins():
                raise BadRequest(f"found '{self._peek()}', expected: !, identifier, or 'end of string'")
            try:
                out.append(self._requirement())
            except _Wrong as wrong:
                raise BadRequest(f"unable to parse requirement: {wrong}") from wrong
            sign = self._next()
            if sign == "," and not self._begins():
                raise BadRequest(f"found '{self._peek()}', expected: identifier after ','")
            if sign not in ("", ","):
                raise BadRequest(f"found '{sign}', expected: ',' or 'end of string'")
        return tuple(sorted(out, key=lambda requirement: requirement.key))

    def _peek(self) -> str:
        return self.tokens[min(self.at, len(self.tokens) - 1)]

    def _next(self) -> str:
        word = self._peek()
        self.at += 1
        return word

    def _begins(self) -> bool:
        word = self._peek()
        return word == "!" or (bool(word) and word not in _PUNCTUATION)

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._word("expected: identifier")
        problem = rules.check_label_key(key)
        if problem:
            raise _Wrong(f'<nil>: Invalid value: "{key}": {problem}')
        if absent or self._peek() in ("", ","):
            return Requirement(key, "!" if absent else "exists")
        sign = self._next()
        operator = _SIGNS.get(sign)
        if operator is None:
            raise _Wrong(f"found '{sign}', expected: {_OPERATOR_WORDS}")
        values = self._values() if sign in ("in", "notin") else (self._value(),)
        wrong = []
        if operator in ("gt", "lt") and not re.fullmatch(r"[+-]?\d+", values[0], re.ASCII):
            wrong.append(
                f"values[0]: Invalid value: \"{values[0]}\": for 'Gt', 'Lt' operators, the value must be an integer"
            )
        for index, value in enumerate(values):
            if problem := rules.check_label_value(value):
                wrong.append(f'values[{index}][{key}]: Invalid value: "{value}": {problem}')
        if wrong:
            raise _Wrong(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
        return Requirement(key, operator, values)

    def _word(self, otherwise: str) -> str:
        word = self._next()
        if not word or word in _PUNCTUATION:
            raise _Wrong(f"found '{word}', {otherwise}")
        return word

    def _value(self) -> str:
        return "" if self._peek() in ("", ",") else self._word("expected: identifier")

    def _values(self) -> tuple[str, ...]:
        """`(a,b)`; nothing between commas or brackets is the empty value."""
        if (sign := self._next()) != "(":
            raise _Wrong(f"found '{sign}' expected: '('")
        values = set()
        if self._peek() not in (",", ")") and not self._begins():
            raise _Wrong(f"found '{self._peek()}', expected: ',', ')' or identifier")
        while True:
            values.add("" if self._peek() in (",", ")") else self._word("expected: ',', or identifier"))
            sign = self._next()
            if sign == ")":
                return tuple(sorted(values))
            if sign != ",":
                raise _Wrong(f"found '{sign}', expected: ',' or ')'")


class _Wrong(Exception):
    """What is wrong with a requirement."""


def parse_label_selector(text: str) -> LabelSelector:
    """A selector from its text form. Empty text selects everything. Raises BadRequest."""
    return LabelSelector(_Parser(text).parse()) if text and not text.isspace() else _EVERYTHING


# --- object to label selector -----------------------------------------------------------------------------------------

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt"}


def requirement(key: str, operator: str, values: Any = ()) -> Requirement:
    """A requirement in the words of the API: In, NotIn, Exists, DoesNotExist, and for nodes Gt and Lt.

    Raises BadRequest.
    """
    if operator not in _OPERATORS:
        raise BadRequest(f"{operator!r} is not a valid label selector operator")
    values = tuple(sorted(values or ()))
    if operator in ("In", "NotIn") and not values:
        raise BadRequest(f"values: Invalid value: []: for {operator} operator, values set can't be empty")
    if operator in ("Exists", "DoesNotExist") and values:
        raise BadRequest(
            f"values: Invalid value: {list(values)}: values set must be empty for exists and does not exist"
        )
    if operator in ("Gt", "Lt") and (len(values) != 1 or not re.fullmatch(r"[+-]?\d+", values[0], re.ASCII)):
        raise BadRequest(
            f"values: Invalid value: {list(values)}: for 'Gt', 'Lt' operators, exactly one integer is required"
        )
    return Requirement(key, _OPERATORS[operator], values)


def from_label_selector(selector: Any) -> LabelSelector:
    """A selector from a meta_v1.LabelSelector or its dict.

    None selects nothing, an empty one everything. Raises BadRequest.
    """
    if selector is None:
        return _NOTHING
    if not isinstance(selector, Mapping):
        selector = {"matchLabels": selector.matchLabels, "matchExpressions": selector.matchExpressions}
    out = [Requirement(key, "in", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        if isinstance(expression, Mapping):
            out.append(requirement(expression["key"], expression["operator"], expression.get("values")))
        else:
            out.append(requirement(expression.key, expression.operator, expression.values))
    return LabelSelector(tuple(sorted(out, key=lambda r: r.key))) if out else _EVERYTHING


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """Selects what has all of these labels: the selector of Services and ReplicationControllers.

    None or empty: everything.
    """
    return LabelSelector(tuple(Requirement(key, "in", (value,)) for key, value in sorted((labels or {}).items())))


def go_text(selector: Mapping[str, Any] | None) -> str:
    """A meta_v1.LabelSelector as Go prints the struct, which is what some messages and columns show."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{item.get('key', '')},Operator:{item.get('operator', '')},"
        f"Values:[{' '.join(item.get('values') or ())}],}},"
        for item in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


# --- field selectors --------------------------------------------------------------------------------------------------


class FieldRequirement(msgspec.Struct, frozen=True):
    """One condition on one field: `operator` is "=" or "!="."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{_escape(self.value)}"


class FieldSelector(msgspec.Struct, frozen=True):
    """A conjunction of conditions on fields. A field that the object lacks counts as empty."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with these field values is selected."""
        return all((fields.get(r.field, "") == r.value) == (r.operator == "=") for r in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _unescape(value: str, text: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*\\(?![\\,=])", value) or re.search(r"(?<!\\)(?:\\\\)*=", value):
        raise BadRequest(f"invalid field selector: {text!r}; invalid value {value!r}")
    return re.sub(r"\\([\\,=])", r"\1", value)


_FIELD_TERM = re.compile(r"((?:[^\\=!]|\\.|!(?!=))*?)(!=|==|=)(.*)", re.DOTALL)


def parse_field_selector(text: str) -> FieldSelector:
    r"""A selector from its text form (`spec.nodeName=n1,status.phase!=Failed`; `\,` `\=` `\\` are escapes).

    Raises BadRequest.
    """
    out = []
    for term in re.findall(r"(?:[^\\,]|\\.)+", text or "", re.DOTALL):
        found = _FIELD_TERM.fullmatch(term)
        if found is None:
            raise BadRequest(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = found.groups()
        out.append(FieldRequirement(field.strip(), "!=" if operator == "!=" else "=", _unescape(value, text)))
    return FieldSelector(tuple(out))
