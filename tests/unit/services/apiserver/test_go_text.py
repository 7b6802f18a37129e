"""What Go says of text that it can't read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.apiserver import go_text


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a":', "unexpected end of JSON input"),
        (b'{"a', "unexpected end of JSON input"),
        (b"nonsense", "invalid character 'o' in literal null (expecting 'u')"),
        (b"xyz", "invalid character 'x' looking for beginning of value"),
        (b'{"a":1} x', "invalid character 'x' after top-level value"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'"a\nb"', "invalid character '\\n' in string literal"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b'"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1ex", "invalid character 'x' in exponent of numeric literal"),
        (b"01", "invalid character '1' after top-level value"),
        (b"'a'", "invalid character '\\'' looking for beginning of value"),
    ],
)
def test_json(data: bytes, error: str) -> None:
    assert go_text.json_error(data) == error


@given(st.binary(max_size=12) | st.text('[]{}:,"\\-+.eE0123456789tru falsn ', max_size=12).map(str.encode))
def test_it_finds_an_error_exactly_where_there_is_one(data: bytes) -> None:
    try:
        json.loads(data.decode("latin-1"), parse_constant=lambda _: 1 / 0)
        sound = True
    except (ValueError, ZeroDivisionError):
        sound = False
    assert (go_text.json_error(data) == "") == sound


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("abc", 'strconv.ParseInt: parsing "abc": invalid syntax'),
        ("", 'strconv.ParseInt: parsing "": invalid syntax'),
        ("1_0", 'strconv.ParseInt: parsing "1_0": invalid syntax'),
        ("9223372036854775808", 'strconv.ParseInt: parsing "9223372036854775808": value out of range'),
    ],
)
def test_numbers(text: str, error: str) -> None:
    with pytest.raises(ValueError, match="strconv") as refused:
        go_text.int64(text)
    assert str(refused.value) == error
    assert (go_text.int64("-5"), go_text.uint64("18446744073709551615")) == (-5, 2**64 - 1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("1m30s", 90), ("-1.5h", -5400), ("0", 0), ("100ms", 0.1), ("+.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert go_text.duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nonsense", 'time: invalid duration "nonsense"'),
        ("", 'time: invalid duration ""'),
        ("5", 'time: missing unit in duration "5"'),
        ("5y", 'time: unknown unit "y" in duration "5y"'),
    ],
)
def test_no_durations(text: str, error: str) -> None:
    with pytest.raises(ValueError, match="time") as refused:
        go_text.duration_seconds(text)
    assert str(refused.value) == error


def test_quotes() -> None:
    assert go_text.quoted('a"\\\n\x01é\u200b') == '"a\\"\\\\\\n\\x01é\\u200b"'
