"""Columns.

One small number for each node instead of a string, so that a rule is judged once a distinct value and looked up for
all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

MISSING = -1
"""What a column holds for a node that lacks the value, and for a row without a node."""

Array = np.ndarray[Any, np.dtype[Any]]


class Column:
    """Each row's value, interned.

    Values are numbered from 0 in the order in which they were first seen, and never forgotten.
    """

    __slots__ = ("_numbers", "ids", "values")

    def __init__(self, capacity: int) -> None:
        self.ids: Array = np.full(capacity, MISSING, dtype=np.int32)
        self.values: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: Hashable) -> int:
        """The value's number, given on first sight."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found

    def known(self, value: Hashable) -> int:
        """The value's number, MISSING if no row ever had it."""
        return self._numbers.get(value, MISSING)

    def set(self, row: int, value: Hashable | None) -> None:
        """Set a row; None clears it."""
        self.ids[row] = MISSING if value is None else self.number(value)

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        ids = np.full(capacity, MISSING, dtype=np.int32)
        ids[: len(self.ids)] = self.ids
        self.ids = ids


class Lookup:
    """A verdict for each distinct value of a column, and for MISSING; judged once, kept, extended as values appear."""

    __slots__ = ("_column", "_judge", "_known", "_table")

    def __init__(self, column: Column, judge: Callable[[Any], Any], missing: Any, dtype: Any) -> None:
        self._column = column
        self._judge = judge
        # The last entry stands for MISSING: index -1 finds it.
        self._table: Array = np.array([missing], dtype=dtype)
        self._known = 0

    def __call__(self, rows: Any) -> Array:
        """The verdicts of these rows."""
        values = self._column.values
        if self._known < len(values):
            fresh = np.array([self._judge(value) for value in values[self._known :]], dtype=self._table.dtype)
            self._table = np.concatenate((self._table[:-1], fresh, self._table[-1:]))
            self._known = len(values)
        out: Array = self._table[self._column.ids[rows]]
        return out
