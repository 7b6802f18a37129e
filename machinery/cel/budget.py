"""What evaluations may cost: each by itself, and all that belong together (those of one policy over one write)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machinery.cel import costs, shapes, sizes
from machinery.cel.errors import LIMIT_EXCEEDED, OUT_OF_BUDGET, CelError
from machinery.cel.expressions import Program
from machinery.cel.shapes import Shape

_MEASURED_FROM = costs.PER_CALL_MAX // 100
"""An expression that can't cost so much over values of that size, whatever they are, is charged that."""


class OutOfBudget(CelError):
    """Nothing more is to be evaluated."""


class Budget:
    """So much is left for evaluations over values that stay the same while the budget is used."""

    def __init__(self, left: int = costs.PER_OBJECT_MAX) -> None:
        self.left = left
        self._sizes: dict[str, tuple[Any, int]] = {}
        self._shapes: dict[str, tuple[Any, Shape]] = {}

    def charge(self, program: Program, variables: Mapping[str, Any]) -> None:
        """Take off what an evaluation costs. Raises OutOfBudget if less is left, CelError if it is more than any one
        evaluation may cost."""
        room = sum(self._size(name, value) for name, value in variables.items())
        cost = program.cost_within(1 << max(room - 1, 0).bit_length())
        if cost > _MEASURED_FROM:
            at_hand = {name: self._shape(name, value) for name, value in variables.items()}
            cost = min(cost, costs.measure(program.tree, at_hand, room))
        if min(cost, costs.PER_CALL_MAX) > self.left:
            self.left = 0
            raise OutOfBudget(OUT_OF_BUDGET)
        self.left -= min(cost, costs.PER_CALL_MAX)
        if cost > costs.PER_CALL_MAX:
            raise CelError(LIMIT_EXCEEDED)

    def _size(self, name: str, value: Any) -> int:
        # Variables of a policy come to be one after the other, in one and the same map.
        known = self._sizes.get(name)
        if known is None or known[0] is not value or name == "variables":
            known = self._sizes[name] = value, sizes.deep_size(value, sizes.INPUT_BYTES_MAX)
        return known[1]

    def _shape(self, name: str, value: Any) -> Shape:
        known = self._shapes.get(name)
        if known is None or known[0] is not value or name == "variables":
            known = self._shapes[name] = value, shapes.of_value(value)
        return known[1]
