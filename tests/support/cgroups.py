"""Looks at cgroups that come and go meanwhile: what vanishes under the eyes is not there, and no error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def below(directory: Path) -> Iterator[Path]:
    """A directory and every one below it, deepest first."""
    for path, _, _ in os.walk(directory, topdown=False):
        yield Path(path)


def processes(directory: Path) -> set[str]:
    """Process ids in a cgroup and all below it."""
    found: set[str] = set()
    for path in below(directory):
        try:
            found.update((path / "cgroup.procs").read_text().split())
        except OSError:
            continue
    return found
