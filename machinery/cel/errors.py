"""What goes wrong with expressions.

CelError
└── TooManyRounds
"""

from __future__ import annotations

LIMIT_EXCEEDED = "operation cancelled: actual cost limit exceeded"
"""Upstream's words for an evaluation that costs more than one may."""
OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
"""Upstream's words for evaluations that cost too much together."""


class CelError(Exception):
    """An expression doesn't compile, or its evaluation fails. The message is for the author of the expression."""


class TooManyRounds(CelError):
    """The engine ended an evaluation whose loops went round too often."""

    def __init__(self) -> None:
        super().__init__(LIMIT_EXCEEDED)
