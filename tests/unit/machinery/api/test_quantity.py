from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api.quantity import Format, Quantity, QuantityError, parse_quantity

SUFFIXES = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
WORTH = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18),
} | {f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"), ("0.5", "500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000", "1k"),
        ("1536", "1536"), ("1e3", "1e3"), ("12e6", "12e6"), ("100m", "100m"), ("0.5Mi", "512Ki"), ("1023Ki", "1023Ki"),
        ("-1.5", "-1500m"), (".5", "500m"), ("5.", "5"), ("+7", "7"), ("0.1n", "1n"), ("1.0Ki", "1Ki"), ("512", "512"),
        ("0.5Ki", "512"), ("1e-3", "1e-3"), ("1E", "1E"), ("100Ei", "9223372036854775807"),
    ],
)  # fmt: skip
def test_canonical_form_is_upstreams(text: str, canonical: str) -> None:
    assert str(parse_quantity(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", ".", "1 Gi", "1gi", "Gi", "--1", "1e", "1ee3", "1.2.3", "0x10", "1_000", "١", "NaN", "inf"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(QuantityError, match="is not a quantity"):
        parse_quantity(text)


def test_an_absurd_exponent_costs_nothing_and_is_capped() -> None:
    assert parse_quantity("1e999999999").value == 2**63 - 1
    assert parse_quantity("1e-999999999").nano == 1


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(SUFFIXES))
def test_amounts_are_exact_or_rounded_up_to_a_billionth(whole: int, fraction: int, suffix: str) -> None:
    exact = (whole + Fraction(fraction, 1000)) * WORTH[suffix]
    nano = -(-exact * 10**9 // 1)
    assert parse_quantity(f"{whole}.{fraction:03}{suffix}").nano == min(nano, (2**63 - 1) * 10**9)


@given(st.integers(-(2**62), 2**62), st.sampled_from(list(Format)))
def test_the_canonical_form_means_the_same_amount(nano: int, form: Format) -> None:
    quantity = Quantity(nano, form)
    again = parse_quantity(str(quantity))
    assert again == quantity
    # A binary amount below 1Ki, or no multiple of it, is written without a suffix and read as a decimal one.
    if again.format is form:
        assert str(again) == str(quantity)


@given(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15))
def test_arithmetic_and_order_are_those_of_numbers(a: int, b: int) -> None:
    left, right = Quantity(a), Quantity(b)
    assert (left + right).nano == a + b
    assert (left - right).nano == a - b
    assert (left < right) == (a < b)
    assert (left == right) == (a == b)


def test_whole_numbers_round_away_from_zero() -> None:
    assert (parse_quantity("1.1").value, parse_quantity("-1.1").value) == (2, -2)
    assert (parse_quantity("1500u").milli_value, parse_quantity(3).milli_value) == (2, 3000)
