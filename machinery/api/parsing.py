"""Parsers as tests: whether a text is what a parser takes."""

from __future__ import annotations

from collections.abc import Callable


def parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    """Whether a parser takes a text, that is doesn't raise ValueError."""

    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check
