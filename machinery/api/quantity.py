"""Quantities of resources ("100m", "1Gi", "2e3"): exact, comparable, and canonical as
k8s.io/apimachinery/pkg/api/resource has them.

A quantity is a whole number of billionths and the suffix family in which it was written. Finer values are rounded up
(away from zero), and values beyond ±(2⁶³-1) are capped, both as upstream does.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache, total_ordering

NANO = 10**9
_VALUE_MAX = (2**63 - 1) * NANO


class Format(enum.Enum):
    """The suffix family in which a quantity is written."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {exponent: suffix for suffix, exponent in _BINARY.items()} | {0: ""}

_TEXT = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,9}))?", re.ASCII)

# 10**exponent is computed below: an exponent past this can only mean zero or the cap.
_EXPONENT_MAX = 1000


class QuantityError(ValueError):
    """The text is not a quantity."""


@total_ordering
class Quantity:
    """An exact amount. Immutable; equal and hashed by amount, whatever the format."""

    __slots__ = ("format", "nano")

    def __init__(self, nano: int, format: Format = Format.DECIMAL_SI) -> None:
        self.nano = max(-_VALUE_MAX, min(_VALUE_MAX, nano))
        self.format = format

    @property
    def value(self) -> int:
        """In whole units, rounded up (away from zero)."""
        return _divide_away(self.nano, NANO)

    @property
    def milli_value(self) -> int:
        """In thousandths, rounded up (away from zero)."""
        return _divide_away(self.nano, NANO // 1000)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.format if self.nano else other.format)

    def __mul__(self, factor: int) -> Quantity:
        return Quantity(self.nano * factor, self.format)

    __rmul__ = __mul__

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.format)

    def __bool__(self) -> bool:
        return self.nano != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nano == other.nano

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __str__(self) -> str:
        """The canonical form: no fraction, and the largest suffix that allows it."""
        if not self.nano:
            return "0"
        # A binary suffix below 1024 or on a fraction would lose digits, so such values are written in decimal.
        if self.format is Format.BINARY_SI and abs(self.nano) >= 1024 * NANO and self.nano % NANO == 0:
            number, exponent = _strip(self.nano // NANO, 1024, 6)
            return f"{number}{_BINARY_SUFFIX[exponent * 10]}"
        number, thousands = _strip(self.nano, 1000, None)
        exponent = thousands * 3 - 9
        if self.format is Format.DECIMAL_EXPONENT:
            return f"{number}e{exponent}" if exponent else str(number)
        return f"{number}{_DECIMAL_SUFFIX[exponent]}"


def _divide_away(number: int, divisor: int) -> int:
    return -(-number // divisor) if number > 0 else number // divisor


def _strip(number: int, base: int, limit: int | None) -> tuple[int, int]:
    """Take out whole factors of `base`: (what is left, how many)."""
    times = 0
    while number % base == 0 and (limit is None or times < limit):
        number //= base
        times += 1
    return number, times


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    found = _TEXT.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        raise QuantityError(
            f"{text!r} is not a quantity: expected a number with an optional suffix, such as 100m, 0.5, 2Gi or 1e3"
        )
    sign, whole, fraction, suffix, exponent_text = found.groups()
    fraction = fraction or ""
    digits = int((whole + fraction) or "0")
    exponent = -len(fraction)
    scale = 1
    if exponent_text is not None:
        format = Format.DECIMAL_EXPONENT
        exponent += max(-_EXPONENT_MAX, min(_EXPONENT_MAX, int(exponent_text)))
    elif suffix in _BINARY:
        format = Format.BINARY_SI
        scale = 2 ** _BINARY[suffix]
    else:
        format = Format.DECIMAL_SI
        exponent += _DECIMAL[suffix or ""]
    exponent += 9
    nano = digits * scale * 10**exponent if exponent >= 0 else _divide_away(digits * scale, 10**-exponent)
    return Quantity(-nano if sign == "-" else nano, format)


def parse_quantity(value: str | int | float | Quantity) -> Quantity:
    """A quantity from its text or number. Raises QuantityError, a ValueError."""
    if isinstance(value, str):
        if len(value) > 512:
            raise QuantityError(f"a quantity of {len(value)} characters is too long")
        return _parse(value)
    if isinstance(value, Quantity):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise QuantityError(f"{value!r} is not a quantity")
    return Quantity(value * NANO) if isinstance(value, int) else _parse(repr(value))


def zero(format: Format = Format.DECIMAL_SI) -> Quantity:
    """No amount."""
    return Quantity(0, format)


def parse(value: str | int | float | Quantity) -> Quantity:
    """The same as `parse_quantity`, for callers that write `quantity.parse(...)`."""
    return parse_quantity(value)
