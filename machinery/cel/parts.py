"""Loops that go round more often than the engine lets them, in parts.

The engine ends an evaluation whose loops went round 10,000 times in all, far below what upstream's cost allows: a list
of 101 items is too long to be compared with itself. Where a rule is one loop over a field (`self.items.all(i, …)`, as
such rules are written), its items can be gone through some at a time: `all` holds if it holds for each part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from machinery.cel.errors import CelError, TooManyRounds

PARTS_MAX = 64
"""Parts that a list may be gone through in: half a second at 10,000 rounds each, about upstream's cost limit."""
ITEMS = "items__part"
"""The variable that stands for the field in the expression for one part."""
_PATH = r"[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*?"
_LOOP = re.compile(
    rf"\s*(?:!\s*has\(\s*(?P<guard>{_PATH})\s*\)\s*\|\|\s*)?(?P<path>{_PATH})\s*\.\s*(?P<macro>all|exists)\s*\(",
    re.DOTALL,
)
_TEXT = re.compile(r"[rR]?(?:'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\")|//[^\n]*")


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop that is a whole expression: over what (a path from a variable), whether all or any have to hold, and the
    same loop over `ITEMS`."""

    path: tuple[str, ...]
    all: bool
    source: str


def whole_loop(source: str) -> Loop | None:
    """The loop that an expression is; None if it is anything else. `!has(x) || x.all(…)` is one, too: without x there
    is nothing to go through."""
    found = _LOOP.match(source)
    if found is None or '"""' in source or "'''" in source:
        return None
    path = tuple(re.sub(r"\s", "", found["path"]).split("."))
    guard = found["guard"]
    if guard is not None and (found["macro"] == "exists" or tuple(re.sub(r"\s", "", guard).split(".")) != path):
        return None
    if _closing(source, found.end()) != len(source.rstrip()) - 1:
        return None
    return Loop(path, found["macro"] == "all", f"{ITEMS}.{found['macro']}({source[found.end() :]}")


def _closing(source: str, start: int) -> int:
    """Where the bracket that is open at `start` closes; -1 if nowhere."""
    depth, at = 1, start
    while at < len(source):
        if text := _TEXT.match(source, at):
            at = text.end()
            continue
        depth += {"(": 1, ")": -1}.get(source[at], 0)
        if not depth:
            return at
        at += 1
    return -1


def evaluate(loop: Loop, variables: Mapping[str, Any], once: Callable[[dict[str, Any]], Any]) -> bool:
    """The loop's value. `once` evaluates its source and raises TooManyRounds where that goes round too often; so does
    this if it takes too many parts. An error counts only if no item decides."""
    value: Any = variables
    for name in loop.path:
        value = value[name]
    items = list(value)
    failed: CelError | None = None
    at, count = 0, max(len(items) // 2, 1)
    while at < len(items):
        try:
            holds = once({**variables, ITEMS: items[at : at + count]})
        except TooManyRounds:
            count //= 2
            if not count or len(items) > count * PARTS_MAX:
                raise
            continue
        except CelError as error:
            failed, holds = failed or error, loop.all
        if holds is not loop.all:
            return not loop.all
        at += count
    if failed is not None:
        raise failed
    return loop.all
