"""How much of a torture test runs, and where its figure goes.

CI runs about a tenth of each count. `make torture` sets CUTAWAY_TORTURE=full, and each test prints its figure. With
CUTAWAY_TORTURE_PARTS=4 a run does a quarter of each count, so that four runs, each as short as wanted, are the whole.
CUTAWAY_TORTURE_FIGURES names a file that figures are added to as well.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

FULL = os.environ.get("CUTAWAY_TORTURE") == "full"
PARTS = int(os.environ.get("CUTAWAY_TORTURE_PARTS", "1"))
FIGURES = os.environ.get("CUTAWAY_TORTURE_FIGURES", "")

full_only = pytest.mark.skipif(not FULL, reason="takes minutes: `make torture`")


def times(full: int, short: int | None = None) -> int:
    """The full count or its part, or a tenth of it (`short`, where a tenth is still too long)."""
    if FULL:
        return -(-full // PARTS)
    return short if short is not None else max(1, full // 10)


def figure(number: int, text: str) -> None:
    """Print what was measured, for item `number` of what Cutaway must survive."""
    note(f"reliability {number}: {text}")


def note(line: str) -> None:
    """Print a line, and add it to the file of figures."""
    print(f"\n{line}")
    if FIGURES:
        with Path(FIGURES).open("a") as out:
            out.write(f"{time.strftime('%H:%M:%S')} {line}\n")


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all is not above; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
