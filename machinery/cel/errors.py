"""What goes wrong with expressions.

CelError
├── OutOfBudget
└── CostExceeded
    └── TooManyRounds
"""

from __future__ import annotations


class CelError(Exception):
    """An expression doesn't compile, or its evaluation fails. The message is for the author of the expression."""


class OutOfBudget(CelError):
    """Evaluations cost too much together: nothing more is to be evaluated. The words are upstream's."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


class CostExceeded(CelError):
    """An evaluation costs more than any one may. The words are upstream's."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class TooManyRounds(CostExceeded):
    """The engine ended an evaluation whose loops went round too often."""
