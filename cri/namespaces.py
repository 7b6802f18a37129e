"""A sandbox's namespaces, kept alive by bind mounts instead of a pause process.

`/proc/self/ns/<kind>` of a short-lived thread is bind-mounted on a file below the sandbox's state directory. The
namespace lives as long as that mount: no process, no image, no memory, and neither the shim's nor containerd's
death touches it. Only a pod that shares its pid namespace needs a process (see `pause`).
"""

import ctypes
import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from cri import kernel

KINDS = {"net": kernel.CLONE_NEWNET, "ipc": kernel.CLONE_NEWIPC, "uts": kernel.CLONE_NEWUTS}
_PINNED = (*KINDS, "pid")
_libc = ctypes.CDLL(None, use_errno=True)

# sysctls that belong to an IPC or a network namespace, and so can be a pod's own.
_IPC_SYSCTLS = {
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
}


def sysctl_namespace(name: str) -> str:
    """`ipc` or `net`, or "" for a sysctl of the whole node."""
    dotted = _relative_path(name).replace("/", ".")
    if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        return "ipc"
    return "net" if dotted.startswith("net.") else ""


def _relative_path(name: str) -> str:
    """Below /proc/sys. Whichever of dot and slash comes first separates; the other is part of a name (sysctl(8))."""
    first = next((character for character in name if character in "./"), ".")
    return name if first == "/" else name.translate(str.maketrans("./", "/."))


def _sysctl_path(name: str) -> str:
    path = _relative_path(name)
    if ".." in path.split("/"):
        raise ValueError(f"sysctl {name!r} is not a name")
    return f"/proc/sys/{path}"


def create(directory: Path, kinds: Collection[str], *, hostname: str = "") -> None:
    """Makes new namespaces of `kinds` and pins each at `directory/<kind>`; blocking, a millisecond or two.

    Sets the host name inside, and brings `lo` up. Leaves nothing pinned when it raises.
    """
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind]

    def work() -> None:
        kernel.unshare(flags)
        task = f"/proc/self/task/{threading.get_native_id()}/ns"
        if "uts" in kinds and hostname:
            name = hostname.encode()
            if _libc.sethostname(name, ctypes.c_size_t(len(name))) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"host name {hostname!r}: {os.strerror(code)}")
        if "net" in kinds:
            kernel.set_link_up("lo")
        for kind in kinds:
            target = directory / kind
            target.touch(mode=0o600)
            kernel.mount(f"{task}/{kind}", str(target), flags=kernel.MS_BIND)

    try:
        kernel.in_new_thread(work)
    except BaseException:
        remove(directory)
        raise


def apply_sysctls(directory: Path, sysctls: Mapping[str, str]) -> None:
    """Sets sysctls inside the pinned namespaces: after CNI, so that those of one interface find it. Blocking."""

    def work() -> None:
        for kind in ("net", "ipc"):
            if (directory / kind).exists():
                kernel.setns(str(directory / kind), KINDS[kind])
        for name, value in sysctls.items():
            try:
                with open(_sysctl_path(name), "w", encoding="ascii") as file:
                    file.write(value)
            except OSError as error:
                raise OSError(error.errno, f"sysctl {name}={value}: {error.strerror}") from error

    kernel.in_new_thread(work)


def remove(directory: Path) -> None:
    """Lets go of the namespaces pinned in `directory`; idempotent."""
    for kind in _PINNED:
        target = directory / kind
        if target.exists():
            kernel.unmount(str(target))
            target.unlink(missing_ok=True)


def is_pinned(path: Path) -> bool:
    """Whether a namespace is mounted there: then its device (nsfs) differs from its directory's."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False
