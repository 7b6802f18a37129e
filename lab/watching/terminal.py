"""One object's part of the story, or all of it, as lines of a terminal."""

from __future__ import annotations

import datetime

from lab.watching.story import Name, Step

DEPTH_MAX = 12


class Lines:
    """Turns steps into lines. With a `target` only what is about it, about what it owns, or came of those."""

    def __init__(self, family: set[Name] | None) -> None:
        # Subjects as steps name them, with their namespace; None: everything.
        self._family = {(str(name), name.namespace) for name in family} if family is not None else None
        self._told: dict[int, tuple[int, float]] = {}

    def add(self, family: set[Name]) -> None:
        """Further members."""
        if self._family is not None:
            self._family |= {(str(name), name.namespace) for name in family}

    def line(self, step: Step) -> str | None:
        """The line of a step; None if it is not told."""
        inside = self._family is None or (step.subject, step.namespace) in self._family or step.because in self._told
        if not inside:
            return None
        depth, began = self._told.get(step.because, (-1, step.time))
        self._told[step.number] = depth + 1, began
        when = datetime.datetime.fromtimestamp(step.time).astimezone()
        clock = when.strftime("%H:%M:%S") if depth < 0 else _since(step.time - began)
        indent = "  " * min(depth + 1, DEPTH_MAX)
        by = step.component + (f" on {step.node}" if step.node else "")
        return f"{clock:>9}  {step.revision or '':>7}  {by:<22.22}  {indent}{step.subject} {step.says}"


def _since(seconds: float) -> str:
    return f"+{seconds * 1000:.0f} ms" if seconds < 10 else f"+{seconds:.1f} s"
