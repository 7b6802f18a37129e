"""What evaluations may cost: each by itself, and all that belong together (those of one policy over one write)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machinery.cel import costs, sizes
from machinery.cel.errors import CostExceeded, OutOfBudget
from machinery.cel.expressions import Program
from machinery.cel.shapes import Values


class Budget:
    """So much is left for evaluations over values that stay the same while the budget is used.

    Charged is what an expression costs over any values of that size, which is known from its last use; only where that
    is too much are the values looked at.
    """

    def __init__(self, left: int = costs.PER_OBJECT_MAX) -> None:
        self.left = left
        self._sizes: dict[str, tuple[Any, int]] = {}
        # What was charged without a look at the values: (program, charge).
        self._unmeasured: list[tuple[Program, int]] = []

    def charge(self, program: Program, variables: Mapping[str, Any]) -> None:
        """Take off what an evaluation costs. Raises as `spend` does."""
        room = sum(self._size(name, value) for name, value in variables.items())
        cost = program.cost_within(1 << max(room - 1, 0).bit_length())
        if cost > costs.PER_CALL_MAX or cost > self.left:
            cost = _measured(program, variables, room, cost)
            if min(cost, costs.PER_CALL_MAX) > self.left:
                self._measure(variables, room)
        else:
            self._unmeasured.append((program, cost))
        self.spend(cost)

    def spend(self, cost: int) -> None:
        """Take off a known cost. Raises OutOfBudget if less is left, CostExceeded if it is more than any one evaluation
        may cost."""
        charged = min(cost, costs.PER_CALL_MAX)
        if charged > self.left:
            self.left = 0
            raise OutOfBudget
        self.left -= charged
        if cost > costs.PER_CALL_MAX:
            raise CostExceeded

    def _measure(self, variables: Mapping[str, Any], room: int) -> None:
        """Give back what was charged for nothing."""
        for program, charged in self._unmeasured:
            self.left += charged - _measured(program, variables, room, charged)
        self._unmeasured.clear()

    def _size(self, name: str, value: Any) -> int:
        # Variables of a policy come to be one after the other, in one and the same map.
        known = self._sizes.get(name)
        if known is None or known[0] is not value or name == "variables":
            known = self._sizes[name] = value, sizes.deep_size(value, sizes.INPUT_BYTES_MAX)
        return known[1]


def _measured(program: Program, variables: Mapping[str, Any], room: int, most: int) -> int:
    at_hand = {name: Values([value]) for name, value in variables.items()}
    return min(most, costs.measure(program.tree, at_hand, room))
