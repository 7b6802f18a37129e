"""Mounts and trees of files, straight by system calls: no program is started for what takes the kernel microseconds."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with the paths."""
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode() or None, flags, data.encode() or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or 'bind'} {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, *, read_only: bool = False, recursive: bool = False) -> None:
    """Bind `source` to `target`, which exists."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        mount(source, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def mount_tmpfs(target: str, *, size_bytes: int | None = None, mode: int | None = None) -> None:
    options = [f"size={size_bytes}"] if size_bytes else []
    options += [f"mode={mode:o}"] if mode is not None else []
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, ",".join(options))


def unmount(target: str) -> None:
    """umount(2), lazily when something still has a file open. What is not mounted is done already."""
    if _libc.umount2(os.fsencode(target), 0) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY and _libc.umount2(os.fsencode(target), MNT_DETACH) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, f"unmount {target}: {os.strerror(number)}")


def mounts_below(root: str) -> list[str]:
    """Mount points at or below a path, deepest first, each as often as it is mounted over."""
    prefix = root.rstrip("/") + "/"
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            target = line.split(" ", 5)[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            if target == root or target.startswith(prefix):
                found.append(target)
    return sorted(found, key=len, reverse=True)


def is_mount_point(path: str) -> bool:
    return path in mounts_below(path)


def unmount_below(root: str) -> None:
    """Unmount all that is mounted at or below a path."""
    for target in mounts_below(root):
        unmount(target)


def remove_tree(root: Path) -> None:
    """Remove a tree without following links and without crossing into another file system.

    What is mounted is never emptied.
    """
    try:
        info = root.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        root.unlink()
        return
    parent = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_entry(parent, root.name, info.st_dev)
    finally:
        os.close(parent)


def _remove_entry(parent: int, name: str, device: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(fd).st_dev != device:
            raise OSError(errno.EXDEV, f"{name} is still mounted")
        with os.scandir(fd) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in names:
            if is_directory:
                _remove_entry(fd, child, device)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
