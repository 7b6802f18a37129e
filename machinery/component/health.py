"""Liveness and readiness: named checks, asked when somebody asks.

A check is a function without arguments that answers None (well) or a sentence (what is wrong). Liveness says "kill me
and start me again"; readiness says "send me work". A component that is stopping is live and not ready.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Check = Callable[[], str | None]


class Outcome(NamedTuple):
    """What one check said: `problem` is None if all is well."""

    name: str
    problem: str | None


class Health:
    """The checks of one process."""

    def __init__(self) -> None:
        self.stopping = False
        self._live: dict[str, Check] = {"ping": lambda: None}
        self._ready: dict[str, Check] = {}

    def add_live(self, name: str, check: Check) -> None:
        """Add (or replace) a liveness check. Readiness includes it."""
        self._live[name] = check

    def add_ready(self, name: str, check: Check) -> None:
        """Add (or replace) a readiness check."""
        self._ready[name] = check

    def live(self) -> list[Outcome]:
        """Every liveness check's outcome."""
        return [_ask(name, check) for name, check in self._live.items()]

    def ready(self) -> list[Outcome]:
        """Every check's outcome, and "shutdown"."""
        out = [_ask(name, check) for name, check in (self._live | self._ready).items()]
        out.append(Outcome("shutdown", "process is stopping" if self.stopping else None))
        return out

    @property
    def is_live(self) -> bool:
        """Whether every liveness check is well."""
        return all(outcome.problem is None for outcome in self.live())

    @property
    def is_ready(self) -> bool:
        """Whether every check is well and the process is not stopping."""
        return all(outcome.problem is None for outcome in self.ready())


def _ask(name: str, check: Check) -> Outcome:
    try:
        return Outcome(name, check())
    except Exception as err:  # A check that breaks is a check that fails; the probe has to be answered.
        return Outcome(name, f"check failed: {err!r}")


def report(title: str, outcomes: list[Outcome], *, verbose: bool) -> tuple[bool, str]:
    """(whether all is well, the text that /livez and /readyz answer)."""
    well = all(outcome.problem is None for outcome in outcomes)
    if well and not verbose:
        return True, "ok"
    lines = [f"[+]{o.name} ok" if o.problem is None else f"[-]{o.name} failed: {o.problem}" for o in outcomes]
    lines.append(f"{title} check {'passed' if well else 'failed'}")
    return well, "\n".join(lines) + "\n"
