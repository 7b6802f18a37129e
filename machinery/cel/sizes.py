"""How large the values of an expression can become: a bound from its syntax tree, before it is evaluated. Pure.

The engine limits how often loops go round (10,000 in all) and nothing else: `cel.bind(a, self + self, cel.bind(b, a +
a, …))` doubles with every step, `self.replace('x', self)` squares. Sizes here are bytes of text, and a few for
everything else. In a loop they are linear in the loop's variable, whose values together are no larger than what is
looped over; without that `items.map(i, i.name)` would seem to be as large as the square of `items`.

Upstream bounds the same by an estimate of cost (k8s.io/apiserver/pkg/cel/library/cost.go).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ITERATIONS_MAX = 10_000
"""The engine's own bound on the rounds of all loops of one evaluation."""
VALUE_BYTES_MAX = 64 * 1024 * 1024
WORK_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""The largest value that may come to be, and what all that come to be in loops may add up to: some seconds."""
INPUT_BYTES_MAX = 8 * 1024 * 1024
"""More than a request's objects can have together: an expression that is harmless at that size is harmless."""
_SCALAR = 16

_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _LOOP = 3, 4, 5, 6, 7, 8, 9
# Calls whose value is a number or a truth.
_SMALL = frozenset(
    (
        "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in", "@not_strictly_false", "size",
        "matches", "contains", "startsWith", "endsWith", "indexOf", "lastIndexOf", "all", "exists", "int", "uint",
        "double", "bool", "type", "has", "hasValue", "_-_", "_*_", "_/_", "_%_", "-_", "isSorted", "sum",
    )
)  # fmt: skip
# Calls whose value is, or is part of, what they are given: nothing new comes to be.
_PARTS = frozenset(("_[_]", "_[?_]", "_?._", "_?_:_", "value", "orValue", "or", "optional.of", "dyn", "min", "max"))


@dataclass(frozen=True, slots=True)
class _Size:
    """`fixed` bytes, and for each loop variable so many times its own size."""

    fixed: int
    per: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: _Size) -> _Size:
        per = {name: self.per.get(name, 0) + other.per.get(name, 0) for name in self.per.keys() | other.per.keys()}
        return _Size(self.fixed + other.fixed, per)


_GATHERED = _Size(0)
"""What a loop has gathered so far, seen from its next round."""


def input_bytes_max(checked: bytes) -> int:
    """How large the variables of an expression (a serialized cel.expr.CheckedExpr in an Any) may be together, in powers
    of two, so that no evaluation makes more than it should; `INPUT_BYTES_MAX` if it is harmless.
    """
    tree = _only(_only(checked, 2), 4)
    size = INPUT_BYTES_MAX
    while size and not _fits(tree, size):
        size //= 2
    return size


def _fits(tree: bytes, input_bytes: int) -> bool:
    try:
        estimate = _Estimate(input_bytes)
        whole = estimate.most(estimate.of(tree, {}, 1))
    except OverflowError:
        return False
    return whole <= VALUE_BYTES_MAX and estimate.work <= WORK_BYTES_MAX


def deep_size(value: Any, most: int) -> int:
    """The size of plain values, counted until it is more than `most`."""
    total, left = 0, [value]
    while left and total <= most:
        one = left.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, Mapping):
            left.extend(one)
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
        total += _SCALAR
    return total


class _Estimate:
    """One walk over a tree. Raises OverflowError at the first value that could be too large."""

    def __init__(self, input_bytes: int) -> None:
        self._input = input_bytes
        self._largest: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self.work = 0

    def of(self, node: bytes, names: Mapping[str, _Size], rounds: int) -> _Size:
        """The size of a node's value, which comes to be `rounds` times."""
        kind, body = next(((number, value) for number, value in _fields(node) if number >= _CONST), (_CONST, b""))
        if kind == _CONST:
            return _Size(max((len(v) for _, v in _fields(body) if isinstance(v, bytes)), default=_SCALAR))
        if kind == _IDENT:
            return names.get(_text(body, 1), _Size(self._input))
        if kind == _SELECT:
            operand = self.of(_only(body, 1), names, rounds)
            return _Size(_SCALAR) if any(number == 3 and value for number, value in _fields(body)) else operand
        if kind == _LIST:
            return sum((self.of(item, names, rounds) for item in _all(body, 1)), _Size(_SCALAR))
        if kind == _STRUCT:
            parts = [part for entry in _all(body, 2) for number in (3, 4) for part in _all(entry, number)]
            return sum((self.of(part, names, rounds) for part in parts), _Size(_SCALAR))
        if kind == _LOOP:
            return self._loop(body, names, rounds)
        return self._call(body, names, rounds)

    def _call(self, body: bytes, names: Mapping[str, _Size], rounds: int) -> _Size:
        given = [self.of(part, names, rounds) for number in (1, 3) for part in _all(body, number)]
        function = _text(body, 2)
        if function in _SMALL:
            return _Size(_SCALAR)
        total = sum(given, _Size(0))
        if function in _PARTS:
            return total
        if function == "replace":
            text, new = self.most(given[0]), self.most(given[2]) if len(given) > 2 else 0
            made = _Size((text + 1) * (new + 1))
        elif function == "join":
            made = _Size(self.most(given[0]) * (1 + sum(map(self.most, given[1:]))))
        elif function == "format":
            made = _Size(self.most(given[0]) * 64 + 4 * sum(map(self.most, given[1:])))
        elif function == "_+_":
            made = total
        else:
            made = total + total + _Size(64)
        size = self.most(made)
        if size > VALUE_BYTES_MAX:
            raise OverflowError(function)
        # What is added to a list of results is not copied.
        if rounds > 1 and not (function == "_+_" and given[0] is _GATHERED):
            self.work += rounds * made.fixed
            # Each time that a loop goes round all of its values, they add up to what is looped over.
            for name, factor in made.per.items():
                self.work += factor * self._largest[name] * -(-rounds // self._times[name])
        return made

    def _loop(self, body: bytes, names: Mapping[str, _Size], rounds: int) -> _Size:
        iterated = _only(body, 2)
        over = self.of(iterated, names, rounds)
        literal = next((value for number, value in _fields(iterated) if number == _LIST), None)
        size = self.most(over)
        times = len(list(_all(literal, 1))) if literal is not None else min(size // 2 + 1, ITERATIONS_MAX)
        first = self.of(_only(body, 4), names, rounds)
        variable, result = _text(body, 1), _text(body, 3)
        inner = f"{variable}#{len(self._largest)}"
        self._largest[inner], self._times[inner] = size, max(times, 1)
        item = _Size(0, {inner: 1})
        own = {**names, variable: item, **{name: item for name in [_text(body, 8)] if name}}
        within = min(rounds * max(times, 1), ITERATIONS_MAX)
        # What is gathered so far is carried over, not made anew: a round adds what it makes.
        self.of(_only(body, 5), {**own, result: _GATHERED}, within)
        step = self.of(_only(body, 6), {**own, result: _GATHERED}, within)
        others = {name: factor * times for name, factor in step.per.items() if name != inner}
        # All values of the loop's variable together are what is looped over.
        gathered = first + _Size(step.fixed * times + step.per.get(inner, 0) * size, others)
        # A list of what is there already takes no room; what is made of it is judged where it is made.
        return self.of(_only(body, 7), {**names, result: gathered}, rounds)

    def most(self, size: _Size) -> int:
        return size.fixed + sum(factor * self._largest[name] for name, factor in size.per.items())


# --- protocol buffers' wire format: the tree's messages are not among the generated ones


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        yield number, value


def _all(data: bytes, number: int) -> Iterator[bytes]:
    return (value for found, value in _fields(data) if found == number and isinstance(value, bytes))


def _only(data: bytes, number: int) -> bytes:
    return next(_all(data, number), b"")


def _text(data: bytes, number: int) -> str:
    return _only(data, number).decode()
