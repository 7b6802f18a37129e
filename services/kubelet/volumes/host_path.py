"""hostPath: a path of the node itself, checked by its declared type."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lightkube.models import core_v1

from services.kubelet.volumes.context import VolumeContext, VolumeError, VolumePath

_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


async def set_up(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    return VolumePath(check(volume.hostPath))


def check(source: core_v1.HostPathVolumeSource) -> str:
    """The path, made if its type says so; raises VolumeError if it is not what its type says."""
    path, kind = source.path, source.type or ""
    if ".." in Path(path).parts:
        raise VolumeError(f"hostPath {path}: must not contain '..'")
    if kind == "DirectoryOrCreate":
        _create(path, directory=True)
        kind = "Directory"
    elif kind == "FileOrCreate":
        _create(path, directory=False)
        kind = "File"
    if not kind:
        if not os.path.exists(path):
            # The runtime would fail on a missing source; a missing path without a type is made, as runtimes have
            # always done.
            os.makedirs(path, mode=0o755, exist_ok=True)
        return path
    test, what = _CHECKS[kind]
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise VolumeError(f"hostPath type check failed: {path} is not {what}") from error
    if not test(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {what}")
    return path


def _create(path: str, *, directory: bool) -> None:
    try:
        if directory:
            os.makedirs(path, mode=0o755, exist_ok=True)
        elif not os.path.exists(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise VolumeError(f"hostPath {path} can't be created: {error.strerror}") from error
