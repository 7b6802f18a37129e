"""What Go's standard library says of text that it can't read: upstream passes that on to clients, who look for it."""

from __future__ import annotations

import re

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
            "\\": "\\\\", '"': '\\"'}  # fmt: skip
_DIGITS = re.compile(r"[+-]?[0-9]+\Z").match
_UNITS = ("ns", "us", "µs", "μs", "ms", "s", "m", "h")
_SECONDS = dict(zip(_UNITS, (1e-9, 1e-6, 1e-6, 1e-6, 1e-3, 1.0, 60.0, 3600.0), strict=True))
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


def quoted(text: str) -> str:
    """strconv.Quote."""
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _escaped(char)) for char in text) + '"'


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def int64(text: str) -> int:
    """strconv.ParseInt to base 10. ValueError has its text."""
    return _number("ParseInt", text, -(2**63), 2**63 - 1)


def uint64(text: str) -> int:
    """strconv.ParseUint to base 10. ValueError has its text."""
    return _number("ParseUint", text, 0, 2**64 - 1)


def _number(function: str, text: str, low: int, high: int) -> int:
    if not _DIGITS(text) or (low == 0 and not text.isdigit()):
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: invalid syntax")
    if len(text) > 21 or not low <= int(text) <= high:
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: value out of range")
    return int(text)


def duration_seconds(text: str) -> float:
    """time.ParseDuration. ValueError has its text."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    invalid = ValueError(f"time: invalid duration {quoted(text)}")
    if not rest or len(rest) > 100:
        raise invalid
    seconds = 0.0
    while rest:
        found = _PART.match(rest)
        assert found is not None
        whole, fraction, unit = found[1], found[2] or "", found[3]
        if not whole and not fraction:
            raise invalid
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted(text)}")
        if unit not in _SECONDS:
            raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
        seconds += float(f"{whole or 0}.{fraction or 0}") * _SECONDS[unit]
        rest = rest[found.end() :]
    return -seconds if text[0] == "-" else seconds


def printed(value: object) -> str:
    """A decoded JSON value in fmt's %+v: `map[a:1 b:[x y]]`."""
    match value:
        case dict():
            return "map[" + " ".join(f"{key}:{printed(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(map(printed, value)) + "]"
        case None:
            return "<nil>"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


# --- JSON

_END = "unexpected end of JSON input"
_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX = re.compile(rb"[0-9a-fA-F]").match
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}


class _Bad(Exception):
    """The text of the error."""


def json_error(data: bytes) -> str:
    """What encoding/json says of a text that is no JSON; empty if it is."""
    try:
        _scan(data)
    except _Bad as bad:
        return str(bad)
    return ""


def _unexpected(data: bytes, at: int, where: str) -> _Bad:
    if at >= len(data):
        return _Bad(_END)
    char = chr(data[at])
    shown = {"'": "'\\''", '"': "'\"'"}.get(char) or f"'{quoted(char)[1:-1]}'"
    return _Bad(f"invalid character {shown} {where}")


def _scan(data: bytes) -> None:
    open_: list[str] = []
    at, wanted = 0, "value"
    while True:
        at = _skipped(data, at)
        char = data[at : at + 1]
        if wanted == "nothing" and not open_:
            if at < len(data):
                raise _unexpected(data, at, "after top-level value")
            return
        if wanted == "nothing":
            inside = open_[-1]
            if char == b",":
                at, wanted = at + 1, "key" if inside == "}" else "value"
            elif char == inside.encode():
                at = at + 1
                open_.pop()
            else:
                what = "object key:value pair" if inside == "}" else "array element"
                raise _unexpected(data, at, f"after {what}")
        elif wanted == "colon":
            if char != b":":
                raise _unexpected(data, at, "after object key")
            at, wanted = at + 1, "value"
        elif wanted in ("key", "key or end"):
            if char == b"}" and wanted == "key or end":
                at, wanted = at + 1, "nothing"
                open_.pop()
            elif char == b'"':
                at, wanted = _string(data, at + 1), "colon"
            else:
                raise _unexpected(data, at, "looking for beginning of object key string")
        elif char == b"{":
            at, wanted = at + 1, "key or end"
            open_.append("}")
        elif char == b"[":
            at, wanted = at + 1, "value or end"
            open_.append("]")
        elif char == b"]" and wanted == "value or end":
            at, wanted = at + 1, "nothing"
            open_.pop()
        else:
            at, wanted = _scalar(data, at), "nothing"


def _skipped(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    assert found is not None
    return found.end()


def _scalar(data: bytes, at: int) -> int:
    """The place after a string, number or literal."""
    first = data[at] if at < len(data) else None
    if first == ord('"'):
        return _string(data, at + 1)
    if first in _LITERALS:
        word = _LITERALS[first]
        for offset, expected in enumerate(word):
            if data[at + offset : at + offset + 1] != bytes((expected,)):
                where = f"in literal {word.decode()} (expecting '{chr(expected)}')"
                raise _unexpected(data, at + offset, where)
        return at + len(word)
    if first is not None and (first == ord("-") or chr(first).isdigit()):
        return _number_end(data, at)
    raise _unexpected(data, at, "looking for beginning of value")


def _string(data: bytes, at: int) -> int:
    while True:
        found = _PLAIN.match(data, at)
        assert found is not None
        at = found.end()
        char = data[at : at + 1]
        if char == b'"':
            return at + 1
        if char != b"\\":
            raise _unexpected(data, at, "in string literal")
        if data[at + 1 : at + 2] == b"u":
            for offset in range(2, 6):
                if not _HEX(data, at + offset):
                    raise _unexpected(data, at + offset, "in \\u hexadecimal character escape")
            at += 6
        elif data[at + 1 : at + 2] and data[at + 1] in b'bfnrt\\/"':
            at += 2
        else:
            raise _unexpected(data, at + 1, "in string escape code")


def _number_end(data: bytes, at: int) -> int:
    if data[at : at + 1] == b"-":
        at += 1
    at = _digits(data, at, "in numeric literal", leading_zero=False)
    if data[at : at + 1] == b".":
        at = _digits(data, at + 1, "after decimal point in numeric literal")
    if data[at : at + 1] in (b"e", b"E"):
        at += 1
        if data[at : at + 1] in (b"+", b"-"):
            at += 1
        at = _digits(data, at, "in exponent of numeric literal")
    return at


def _digits(data: bytes, at: int, where: str, *, leading_zero: bool = True) -> int:
    found = re.compile(rb"[0-9]+" if leading_zero else rb"0|[1-9][0-9]*").match(data, at)
    if found is None:
        raise _unexpected(data, at, where)
    return found.end()
