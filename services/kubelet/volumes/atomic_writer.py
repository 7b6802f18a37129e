"""Puts a set of files into a volume at once: a reader sees all old ones or all new ones, never a mixture.

    volume/..2026_11_23_17_50_00.123456/   the files, in a directory of their own
    volume/..data -> ..2026_…              replaced by one rename
    volume/name   -> ..data/name           what containers open

The layout is upstream's, so that programs which watch `..data` work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

_DATA = "..data"
_DATA_NEW = "..data_tmp"


class UnsafePath(ValueError):
    """A file name that would leave the volume."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file: its bytes, its permission bits, its owner if not root."""

    data: bytes
    mode: int = 0o644
    uid: int | None = None


def check_path(path: str) -> None:
    """Raise UnsafePath unless the path stays below the volume."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or pure.parts[0].startswith("..") or len(path) > 4096:
        raise UnsafePath(f"invalid path: {path!r} must be relative, without '..' and not start with '..'")


def write(volume: Path, files: Mapping[str, FileContent], *, gid: int | None = None) -> bool:
    """Make the volume hold exactly these files; False if it did already. `gid` is the pod's fsGroup."""
    for path in files:
        check_path(path)
    current = _current(volume)
    if current is not None and _same(current, files):
        return False
    fresh = volume / f"..{datetime.now(UTC):%Y_%m_%d_%H_%M_%S.%f}"
    fresh.mkdir(mode=0o755)
    try:
        fresh.chmod(0o755)
        for path, content in files.items():
            _write_file(fresh, path, content, gid)
        _swap(volume, fresh.name)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _link_names(volume, files)
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return True


def _current(volume: Path) -> Path | None:
    try:
        return volume / os.readlink(volume / _DATA)
    except OSError:
        return None


def _same(current: Path, files: Mapping[str, FileContent]) -> bool:
    present = {str(p.relative_to(current)) for p in current.rglob("*") if not p.is_dir()}
    if present != {str(PurePosixPath(path)) for path in files}:
        return False
    for path, content in files.items():
        target = current / path
        if target.read_bytes() != content.data:
            return False
    return True


def _write_file(root: Path, path: str, content: FileContent, gid: int | None) -> None:
    target = root / path
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    target.write_bytes(content.data)
    mode = content.mode
    if gid is not None or content.uid is not None:
        os.chown(target, -1 if content.uid is None else content.uid, -1 if gid is None else gid)
    if gid is not None:
        mode |= 0o440 if mode & 0o400 else 0o040
    target.chmod(mode)


def _swap(volume: Path, name: str) -> None:
    new = volume / _DATA_NEW
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.rename(volume / _DATA)


def _link_names(volume: Path, files: Mapping[str, FileContent]) -> None:
    """The names that containers see. New ones after the swap, so that they never dangle; old ones go last."""
    wanted = {PurePosixPath(path).parts[0] for path in files}
    for name in wanted:
        link = volume / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
    for entry in list(os.scandir(volume)):
        if not entry.name.startswith("..") and entry.name not in wanted and entry.is_symlink():
            os.unlink(entry.path)
