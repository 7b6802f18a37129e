"""Regular expressions of custom resources' schemas: Go's dialect (RE2), judged in linear time wherever possible.

The compiled validators take a subset of it and translate the rest's spelling; what they refuse (inline flags, `\\A`,
`\\z`) is left to Python's engine.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import jsonschema_rs

LINEAR = jsonschema_rs.RegexOptions()
"""How every validator here is compiled: by an engine without backtracking."""


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:
    """A validator of one pattern, or None if its engine doesn't take it."""
    try:
        return jsonschema_rs.Draft4Validator({"pattern": pattern}, pattern_options=LINEAR)
    except (ValueError, jsonschema_rs.ValidationError):
        return None


@functools.lru_cache(maxsize=1024)
def _python(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(r"\z", r"\Z"))


def problem(pattern: str) -> str:
    """What is wrong with a pattern; the empty string if nothing."""
    if compiled(pattern) is not None:
        return ""
    try:
        _python(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return ""


def matches(pattern: str, text: str) -> bool:
    """Does the pattern match anywhere in the text?"""
    validator = compiled(pattern)
    if validator is not None:
        return bool(validator.is_valid(text))
    return _python(pattern).search(text) is not None
