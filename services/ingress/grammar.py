"""What may reach the proxy's configuration: strict grammars, stricter than the API's own validation.

CVE-2025-1974 and its like came from values that a template wrote out as they were. Here every value is matched whole
against the grammar of what it is, and `quoted` refuses whatever could end a quoted word, so that neither a newline, a
quote, a map's delimiter nor a directive can get in by any field. Functions answer None, or what is wrong and what would
be right.
"""

from __future__ import annotations

import ipaddress
import re

HOST_CHARS_MAX = 253
PATH_CHARS_MAX = 2048
REGEX_CHARS_MAX = 512
# Repeats one after the other multiply the time that a hostile path takes to match; PCRE's own limit is the backstop.
REGEX_UNBOUNDED_MAX = 3
REGEX_REPEATS_MAX = 12
REGEX_GROUPS_MAX = 9
REGEX_DEPTH_MAX = 8
REGEX_COUNT_MAX = 100

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# RFC 3986: pchar and "/".
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
# What a rewritten path may hold: the same without what means something inside the proxy's words, and $1 … $9.
_TARGET = re.compile(r"/(?:[A-Za-z0-9\-._~!&*+,;=:@/]|%[0-9A-Fa-f]{2}|\$[1-9])*")
_COOKIE_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_UNQUOTABLE = re.compile(r"[^\x20-\x7e]|'")


def host(text: str) -> str | None:
    """A DNS name, the first label of which may be "*"."""
    if len(text) > HOST_CHARS_MAX or not _HOST.fullmatch(text) or text == "*":
        return f"{text!r} is not a lower-case DNS name, with or without a first label '*'"
    return None


def name(text: str) -> str | None:
    """The name of an object."""
    return None if len(text) <= HOST_CHARS_MAX and _NAME.fullmatch(text) else f"{text!r} is not a name of an object"


def path(text: str) -> str | None:
    """An absolute path of a URL, percent-encoded."""
    if len(text) > PATH_CHARS_MAX:
        return f"has {len(text)} characters; at most {PATH_CHARS_MAX} are served"
    if not _PATH.fullmatch(text):
        return f"{text!r} is not the path of a URL: it begins with '/', and other characters are percent-encoded"
    return None


def rewrite_target(text: str) -> str | None:
    """A path with references $1 … $9."""
    if len(text) > PATH_CHARS_MAX or not _TARGET.fullmatch(text):
        return f"{text!r} is not a path that begins with '/', with $1 … $9 for captured groups"
    return None


def cookie_name(text: str) -> str | None:
    """A cookie's name."""
    return None if _COOKIE_NAME.fullmatch(text) else f"{text!r} is not up to 64 letters, digits, '-' and '_'"


def address(text: str) -> bool:
    """Whether it is an IP address that a pod can have."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not (
        found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified
    )


def quoted(text: str) -> str:
    """A word of haproxy.cfg in single quotes, in which everything stands for itself.

    Raises ValueError for what can't be said so; the grammars above let none of it through.
    """
    if _UNQUOTABLE.search(text):
        raise ValueError(f"{text!r} can't be quoted")
    return f"'{text}'"


def regex(text: str) -> str | None:
    """A path as a regular expression: a small language that takes bounded time and means the same everywhere.

    Literals, '.', classes, groups '(…)' and '(?:…)', '|', '*', '+', '?', '{m,n}', lazy forms, '^' and '$'. No
    look-around, back references, flags, or unbounded repeats inside unbounded repeats.
    """
    if len(text) > REGEX_CHARS_MAX:
        return f"has {len(text)} characters; at most {REGEX_CHARS_MAX} are taken as a regular expression"
    if not text.startswith("/"):
        return f"{text!r} must begin with '/'"
    try:
        _Regex(text).check()
    except ValueError as error:
        return f"{text!r} as a regular expression: {error}"
    return None


_LITERAL = re.compile(r"[A-Za-z0-9\-_~!&,;=:@/%]")
_ESCAPED = re.compile(r"[dDwWsS./\-+*?()\[\]{}|^$&@:;,=~_!%]")
_CLASS = re.compile(r"\[\^?(?:[A-Za-z0-9\-_~!&,;=:@/%.+*?()|$]|\\[dwsDWS./\-+*?()\[\]|^$])+\]")
_REPEAT = re.compile(r"([*+?]|\{(\d{1,3})(,(\d{0,3}))?\})\??")


class _Regex:
    """Recursive descent over the language; `check` raises ValueError saying what is not in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.groups = 0
        self.repeats = 0
        self.unbounded = 0

    def check(self) -> None:
        self._alternatives(0)
        if self.at < len(self.text):
            raise ValueError(f"unexpected {self.text[self.at]!r} at character {self.at}")
        if self.unbounded > REGEX_UNBOUNDED_MAX or self.repeats > REGEX_REPEATS_MAX:
            raise ValueError(f"more than {REGEX_UNBOUNDED_MAX} unbounded or {REGEX_REPEATS_MAX} repeats")

    def _alternatives(self, depth: int) -> bool:
        """Consume up to the group's end; whether one text can match it in several ways."""
        if depth > REGEX_DEPTH_MAX:
            raise ValueError(f"groups nest deeper than {REGEX_DEPTH_MAX}")
        ambiguous = False
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                ambiguous = True
                continue
            is_anchor = self.text[self.at] in "^$"
            inner = self._atom(depth)
            repeat = _REPEAT.match(self.text, self.at)
            if repeat is not None:
                if is_anchor:
                    raise ValueError("'^' and '$' can't be repeated")
                if inner and repeat[1] != "?":
                    raise ValueError("a repeat of what itself repeats or chooses can take unbounded time")
                self.at = repeat.end()
                self.repeats += 1
                self.unbounded += self._is_unbounded(repeat)
            ambiguous |= inner or repeat is not None
        return ambiguous

    @staticmethod
    def _is_unbounded(repeat: re.Match[str]) -> bool:
        if repeat[1] in ("*", "+"):
            return True
        if repeat[2] is None:
            return False
        least, most = int(repeat[2]), repeat[4]
        if least > REGEX_COUNT_MAX or (most and int(most) > REGEX_COUNT_MAX):
            raise ValueError(f"repeats more than {REGEX_COUNT_MAX} times")
        if most and int(most) < least:
            raise ValueError(f"{repeat[1]} ends before it begins")
        return repeat[3] is not None and not most

    def _atom(self, depth: int) -> bool:
        char = self.text[self.at]
        if char == "(":
            return self._group(depth)
        if char == "[":
            found = _CLASS.match(self.text, self.at)
            if found is None:
                raise ValueError(f"the class at character {self.at} is not closed or holds more than plain characters")
            try:
                re.compile(found[0])
            except re.error as error:
                raise ValueError(f"the class at character {self.at}: {error.msg}") from error
            self.at = found.end()
            return False
        if char == "\\":
            if not _ESCAPED.match(self.text, self.at + 1):
                raise ValueError(f"'\\' at character {self.at} stands before neither d, w, s nor punctuation")
            self.at += 2
            return False
        if char in ".^$" or _LITERAL.match(char):
            self.at += 1
            return False
        raise ValueError(f"unexpected {char!r} at character {self.at}")

    def _group(self, depth: int) -> bool:
        self.at += 1
        if self.text.startswith("?:", self.at):
            self.at += 2
        elif self.text[self.at : self.at + 1] in ("?", "*"):
            raise ValueError("only '(…)' and '(?:…)' groups are taken")
        else:
            self.groups += 1
            if self.groups > REGEX_GROUPS_MAX:
                raise ValueError(f"more than {REGEX_GROUPS_MAX} groups")
        ambiguous = self._alternatives(depth + 1)
        if self.text[self.at : self.at + 1] != ")":
            raise ValueError("a group is not closed")
        self.at += 1
        return ambiguous
