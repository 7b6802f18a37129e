"""Numbers that may be percentages: "25%" of something, or 3."""

from __future__ import annotations


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """`value` of `total`. Raises ValueError if it is neither a number nor a percentage."""
    if isinstance(value, int):
        return value
    if not value.endswith("%") or not value[:-1].isdigit():
        raise ValueError(f'invalid value for IntOrString: invalid type: string is not a percentage: "{value}"')
    product = int(value[:-1]) * total
    return -(-product // 100) if round_up else product // 100
