"""Regular expressions of custom resources' schemas: Go's dialect (RE2), judged in a time that grows with the text only.

Whether a pattern is one RE2 itself says. The compiled validators take nearly all of it; what they refuse (`\\A`, `\\z`,
very large repetitions) is left to RE2. Nothing is left to an engine that backtracks: a pattern of ten characters would
hold the server for minutes.
"""

from __future__ import annotations

import functools
from typing import Any

import jsonschema_rs
import re2

LINEAR = jsonschema_rs.RegexOptions()
"""How every validator here is compiled: by an engine without backtracking."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:
    """A validator of one pattern, or None if its engine doesn't take it."""
    try:
        return jsonschema_rs.Draft4Validator({"pattern": pattern}, pattern_options=LINEAR)
    except (ValueError, jsonschema_rs.ValidationError):
        return None


@functools.lru_cache(maxsize=1024)
def _re2(pattern: str) -> Any:
    return re2.compile(pattern, _OPTIONS)


def problem(pattern: str) -> str:
    """What is wrong with a pattern; the empty string if nothing."""
    try:
        _re2(pattern)
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0] if error.args else error
        return why.decode(errors="replace") if isinstance(why, bytes) else str(why)
    return ""


def matches(pattern: str, text: str) -> bool:
    """Does the pattern match anywhere in the text? What is no pattern (of a definition from before) matches nothing."""
    validator = compiled(pattern)
    if validator is not None:
        return bool(validator.is_valid(text))
    return not problem(pattern) and _re2(pattern).search(text) is not None
