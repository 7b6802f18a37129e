"""Giving a volume to the pod's fsGroup."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def give_to_group(root: Path, gid: int | None, *, only_if_root_differs: bool = True) -> None:
    """Make everything below readable and writable by the group, new files inheriting it.

    With `only_if_root_differs` a volume whose root already fits is left alone (`fsGroupChangePolicy: OnRootMismatch`,
    and every volume that is prepared a second time).
    """
    if gid is None:
        return
    info = root.stat()
    wanted = stat.S_ISGID | 0o070
    if only_if_root_differs and info.st_gid == gid and info.st_mode & wanted == wanted:
        return
    # The root goes last: if this is interrupted, the root still differs and it is done again.
    for directory, names, files in os.walk(root, topdown=False):
        for name in [*files, *names]:
            _give(os.path.join(directory, name), gid)
    _give(str(root), gid)


def _give(path: str, gid: int) -> None:
    info = os.lstat(path)
    os.chown(path, -1, gid, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return
    extra = 0o660 if not stat.S_ISDIR(info.st_mode) else stat.S_ISGID | 0o770
    os.chmod(path, stat.S_IMODE(info.st_mode) | extra)
