"""How large the values of an expression can become: a bound from its syntax tree, before it is evaluated. Pure.

The engine limits how often loops go round (10,000 in all) and nothing else: `cel.bind(a, self + self, cel.bind(b, a +
a, …))` doubles with every step, `self.replace('x', self)` squares. Sizes here are bytes of text, and a few for
everything else. In a loop they are linear in the loop's variable, whose values together are no larger than what is
looped over; without that `items.map(i, i.name)` would seem to be as large as the square of `items`.

Upstream bounds memory by cost alone (`machinery.cel.costs`), which its own evaluator counts as it goes; here the
evaluator can't, so that both are known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machinery.cel import tree

ITERATIONS_MAX = 10_000
"""The engine's own bound on the rounds of all loops of one evaluation (`parts` goes round more often)."""
VALUE_BYTES_MAX = 64 * 1024 * 1024
WORK_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""The largest value that may come to be, and what all that come to be in loops may add up to: some seconds."""
INPUT_BYTES_MAX = 8 * 1024 * 1024
"""More than a request's objects can have together: an expression that is harmless at that size is harmless."""
_SCALAR = 16

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


def input_bytes_max(expression: tree.Node) -> int:
    """How large the variables of an expression may be together, in powers of two, so that no evaluation makes more than
    it should; `INPUT_BYTES_MAX` if it is harmless.
    """
    size = INPUT_BYTES_MAX
    while size and not _fits(expression, size):
        size //= 2
    return size


def _fits(expression: tree.Node, input_bytes: int) -> bool:
    try:
        estimate = _Estimate(input_bytes)
        whole = estimate.most(estimate.of(expression, {}, 1))
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

    def of(self, node: tree.Node, names: Mapping[str, _Size], rounds: int) -> _Size:
        """The size of a node's value, which comes to be `rounds` times."""
        match node:
            case tree.Const():
                return _Size(len(node.value.encode()) if isinstance(node.value, str) else max(node.size, _SCALAR))
            case tree.Ident():
                return names.get(node.name, _Size(self._input))
            case tree.Select():
                operand = self.of(node.operand, names, rounds)
                return _Size(_SCALAR) if node.test else operand
            case tree.List():
                return sum((self.of(item, names, rounds) for item in node.items), _Size(_SCALAR))
            case tree.Struct():
                parts = [part for entry in node.entries for part in entry if part is not None]
                return sum((self.of(part, names, rounds) for part in parts), _Size(_SCALAR))
            case tree.Loop():
                return self._loop(node, names, rounds)
        return self._call(node, names, rounds)

    def _call(self, node: tree.Call, names: Mapping[str, _Size], rounds: int) -> _Size:
        target = [node.target] if node.target is not None else []
        given = [self.of(part, names, rounds) for part in (*target, *node.arguments)]
        function = node.function
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

    def _loop(self, node: tree.Loop, names: Mapping[str, _Size], rounds: int) -> _Size:
        over = self.of(node.over, names, rounds)
        size = self.most(over)
        times = len(node.over.items) if isinstance(node.over, tree.List) else min(size // 2 + 1, ITERATIONS_MAX)
        first = self.of(node.first, names, rounds)
        variable, result = node.variable, node.accumulated
        inner = f"{variable}#{len(self._largest)}"
        self._largest[inner], self._times[inner] = size, max(times, 1)
        item = _Size(0, {inner: 1})
        own = {**names, variable: item, **{name: item for name in [node.second] if name}}
        within = min(rounds * max(times, 1), ITERATIONS_MAX)
        # What is gathered so far is carried over, not made anew: a round adds what it makes.
        self.of(node.condition, {**own, result: _GATHERED}, within)
        step = self.of(node.step, {**own, result: _GATHERED}, within)
        others = {name: factor * times for name, factor in step.per.items() if name != inner}
        # All values of the loop's variable together are what is looped over.
        gathered = first + _Size(step.fixed * times + step.per.get(inner, 0) * size, others)
        # A list of what is there already takes no room; what is made of it is judged where it is made.
        return self.of(node.result, {**names, result: gathered}, rounds)

    def most(self, size: _Size) -> int:
        return size.fixed + sum(factor * self._largest[name] for name, factor in size.per.items())
