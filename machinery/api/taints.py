"""Taints of nodes (core/v1): what tolerates them. Pure.

The scheduler keeps pods from tainted nodes, the controller-manager takes them off: were they to differ, pods would go
round in circles. Devices have taints of their own (`device_taints`).
"""

from __future__ import annotations

from typing import Protocol


class Taint(Protocol):
    """A Taint."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str | None: ...
    @property
    def effect(self) -> str: ...


class Toleration(Protocol):
    """A Toleration. What is empty or None was left out."""

    @property
    def key(self) -> str | None: ...
    @property
    def operator(self) -> str | None: ...
    @property
    def value(self) -> str | None: ...
    @property
    def effect(self) -> str | None: ...


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether the toleration is for this taint: an empty key with Exists tolerates everything, an empty effect every
    effect."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator or "Equal":
        case "Exists":
            return True
        case "Equal":
            return bool(toleration.key) and (toleration.value or "") == (taint.value or "")
        case ("Lt" | "Gt") as operator:
            return _compares(operator, toleration.value, taint.value)
        case _:
            return False


def _compares(operator: str, bound: str | None, value: str | None) -> bool:
    """KEP-5471: the taint's value is less (greater) than the toleration's."""
    try:
        left, right = int(value or ""), int(bound or "")
    except ValueError:
        return False
    return left < right if operator == "Lt" else left > right
