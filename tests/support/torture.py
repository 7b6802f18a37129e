"""How much of a torture test runs, and where its figure goes.

CI runs about a tenth of each count. `make torture` sets CUTAWAY_TORTURE=full, and each test prints its figure.
"""

from __future__ import annotations

import os

import pytest

FULL = os.environ.get("CUTAWAY_TORTURE") == "full"

full_only = pytest.mark.skipif(not FULL, reason="takes minutes: `make torture`")


def times(full: int, short: int | None = None) -> int:
    """The full count, or a tenth of it (`short`, where a tenth is still too long)."""
    return full if FULL else short if short is not None else max(1, full // 10)


def figure(number: int, text: str) -> None:
    """Print what was measured, for item `number` of what Cutaway must survive."""
    print(f"\nreliability {number}: {text}")


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all is not above; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
