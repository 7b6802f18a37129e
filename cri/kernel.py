"""The few system calls that Python's standard library lacks, and threads that run in namespaces of their own.

Namespaces belong to threads. Work in another network, IPC, UTS or mount namespace runs in a thread that enters it
and ends with the work, so the rest of the process never leaves its own.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

RESOLVE_IN_ROOT = 0x10
_NR_OPENAT2 = 437  # the same number on every architecture
_NR_SETRESUID = {"x86_64": 117, "aarch64": 147}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, doing: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {source} on {target}")


def unmount(target: str, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> None:
    """Unmounts every layer at `target`; a path that is not mounted or not there is left as it is."""
    for _ in range(64):  # stacked mounts are ours by mistake at most once or twice
        if _libc.umount2(target.encode(), ctypes.c_int(flags)) == 0:
            continue
        code = ctypes.get_errno()
        if code in (22, 2):  # EINVAL: not a mount; ENOENT
            return
        raise OSError(code, f"unmount {target}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(path: str, kind: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), f"enter {path}")
    finally:
        os.close(fd)


def become_user(uid: int) -> None:
    """Makes `uid` the effective user of the calling thread alone; the C library's own call changes them all."""
    number = _NR_SETRESUID.get(platform.machine())
    if number is None:
        raise OSError(38, f"change the user of a thread: not known how on {platform.machine()}")
    unchanged = ctypes.c_uint(0xFFFFFFFF)
    result = _libc.syscall(ctypes.c_long(number), unchanged, ctypes.c_uint(uid), unchanged)
    _check(result, f"become user {uid}")


def mount_overlay(target: str, options: Sequence[str], cwd: str) -> None:
    """Mounts an overlay whose layers may be named relative to `cwd`."""

    def work() -> None:
        unshare(CLONE_FS)  # the working directory is this thread's own from here
        os.chdir(cwd)
        mount("overlay", target, "overlay", data=",".join(options))

    in_new_thread(work)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root_fd: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Opens `path` with `root_fd` as its root directory: no `..` and no symbolic link leads out of it (openat2(2))."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT)
    result = _libc.syscall(
        ctypes.c_long(_NR_OPENAT2),
        ctypes.c_int(root_fd),
        path.encode(),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return _check(result, f"open {path}")


def set_link_up(name: str) -> None:
    """`ip link set NAME up` in the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = struct.pack("16sh14x", name.encode(), 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags | _IFF_UP))


def in_new_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread that ends with it, and returns or raises what it did.

    What the thread did to its own namespaces ends with the thread.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@contextlib.contextmanager
def directory_fd(path: str | Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def machine() -> tuple[str, str]:
    """(architecture, variant) in the OCI's words."""
    name = platform.machine()
    known = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "i686": ("386", "")}
    return known.get(name, (name, ""))
