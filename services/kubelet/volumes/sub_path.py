"""subPath mounts: a place inside a volume, bound on a path of our own before a container starts.

A container that shares the volume may swap a directory for a link at any moment. So the way down is walked by
directory descriptors that follow no link (CVE-2017-1002101, CVE-2021-25741), and what is bound is the descriptor that
was reached, not a name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from services.kubelet.volumes import mounting
from services.kubelet.volumes.context import VolumeError


def check(sub_path: str) -> None:
    """Raise VolumeError unless the path is relative and stays inside."""
    pure = PurePosixPath(sub_path)
    if pure.is_absolute() or ".." in pure.parts:
        raise VolumeError(f"subPath {sub_path!r}: must be relative and must not contain '..'")


def prepare(volume: str, sub_path: str, target: Path, *, read_only: bool = False) -> str:
    """Bind `volume/sub_path` on `target` and give back the target.

    Missing directories are made, with the mode of the one above.
    """
    check(sub_path)
    if mounting.is_mount_point(str(target)):
        return str(target)
    fd = _open_below(volume, sub_path, read_only=read_only)
    try:
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            target.mkdir(mode=0o750, exist_ok=True)
        else:
            target.touch(mode=0o640, exist_ok=True)
        mounting.bind(f"/proc/self/fd/{fd}", str(target), recursive=True)
    finally:
        os.close(fd)
    return str(target)


def _open_below(volume: str, sub_path: str, *, read_only: bool) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in PurePosixPath(sub_path).parts:
            child = _open_or_make(fd, name, flags, read_only=read_only)
            os.close(fd)
            fd = child
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                fd = _resolve_link(volume, fd, sub_path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_or_make(parent: int, name: str, flags: int, *, read_only: bool) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if read_only:
            raise
    except NotADirectoryError as error:
        raise VolumeError(f"subPath component {name!r} is below something that is not a directory") from error
    above = os.fstat(parent)
    os.mkdir(name, 0o755, dir_fd=parent)
    child = os.open(name, flags | os.O_DIRECTORY, dir_fd=parent)
    real = f"/proc/self/fd/{child}"
    os.chmod(real, stat.S_IMODE(above.st_mode))
    os.chown(real, above.st_uid, above.st_gid)
    return child


def _resolve_link(volume: str, link: int, sub_path: str) -> int:
    """A link inside the volume is followed if it stays inside (config maps are made of links).

    Resolved, then walked link-free.
    """
    name = os.readlink(f"/proc/self/fd/{link}")
    real_volume = os.path.realpath(volume)
    real = os.path.realpath(name)
    if os.path.commonpath([real_volume, real]) != real_volume:
        raise VolumeError(f"subPath {sub_path!r} leads out of its volume")
    fd = os.open(real_volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in PurePosixPath(os.path.relpath(real, real_volume)).parts:
            child = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            if stat.S_ISLNK(os.fstat(child).st_mode):
                os.close(child)
                raise VolumeError(f"subPath {sub_path!r} changed while it was being resolved")
            os.close(fd)
            fd = child
    except BaseException:
        os.close(fd)
        raise
    os.close(link)
    return fd
