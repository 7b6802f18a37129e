"""Bounds the log files of a cluster's processes: the components', and with the ingress controller's its access log.

A file's writers hold it open, for longer than we may live, and append to it. So what it has is copied to `NAME.1`, in
place of what was there, and the file is cut to nothing where it is; what is written between the two is lost.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

BYTES_MAX = 32 * 1024 * 1024
# What a busy proxy writes in this time comes on top of the bound.
LOOK_SECONDS = 10.0
FORMER_SUFFIX = ".1"


def bound(paths: Iterable[Path], bytes_max: int = BYTES_MAX) -> list[Path]:
    """Cut those that have grown beyond their bound; which ones those were."""
    cut: list[Path] = []
    for path in dict.fromkeys(paths):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size > bytes_max:
                _cut(path)
                cut.append(path)
    return cut


def _cut(path: Path) -> None:
    former = path.with_name(path.name + FORMER_SUFFIX)
    try:
        shutil.copyfile(path, former)
        former.chmod(path.stat().st_mode)
    except OSError:
        # The disk is full, most likely, and this file is what it is full of.
        former.unlink(missing_ok=True)
    with path.open("r+b") as file:
        file.truncate()
