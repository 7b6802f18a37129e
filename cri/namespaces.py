"""A sandbox's namespaces, kept alive by bind mounts instead of a pause process.

`/proc/self/ns/<kind>` of a short-lived thread is bind-mounted on a file below the sandbox's state directory. The
namespace lives as long as that mount: no process, no image, no memory, and neither the shim's nor containerd's
death touches it. Only a pod that shares its pid namespace needs a process (see `pause`).
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from cri import kernel
from cri.id_maps import IdMap

KINDS = {"net": kernel.CLONE_NEWNET, "ipc": kernel.CLONE_NEWIPC, "uts": kernel.CLONE_NEWUTS}
_PINNED = (*KINDS, "pid", "user")
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


def create(directory: Path, kinds: Collection[str], *, hostname: str = "", ids: IdMap | None = None) -> None:
    """Makes new namespaces of `kinds` and pins each at `directory/<kind>`; blocking, a millisecond or two.

    Sets the host name inside, and brings `lo` up. With `ids` they belong to a new user namespace with this map, which
    is pinned at `directory/user`. Leaves nothing pinned when it raises.
    """
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind]

    def work() -> None:
        kernel.unshare(flags)
        _settle(kinds, hostname)
        _pin(directory, kinds, f"/proc/self/task/{threading.get_native_id()}/ns")

    def enter() -> None:
        for kind in kinds:
            kernel.setns(str(directory / kind), KINDS[kind])
        _settle(kinds, hostname)

    try:
        if ids is None:
            kernel.in_new_thread(work)
            return
        with _in_new_user_namespace(flags, ids) as pid:
            _pin(directory, ["user", *kinds], f"/proc/{pid}/ns")
        kernel.in_new_thread(enter)
    except BaseException:
        remove(directory)
        raise


def _settle(kinds: Collection[str], hostname: str) -> None:
    """What every new namespace needs; from within."""
    if "uts" in kinds and hostname:
        name = hostname.encode()
        if _libc.sethostname(name, ctypes.c_size_t(len(name))) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"host name {hostname!r}: {os.strerror(code)}")
    if "net" in kinds:
        kernel.set_link_up("lo")


def _pin(directory: Path, kinds: Iterable[str], source: str) -> None:
    for kind in kinds:
        target = directory / kind
        target.touch(mode=0o600)
        kernel.mount(f"{source}/{kind}", str(target), flags=kernel.MS_BIND)


@contextlib.contextmanager
def _in_new_user_namespace(flags: int, ids: IdMap) -> Iterator[int]:
    """The id of a process in a new user namespace and in new ones of `flags` that belong to it; it ends with the block.

    A process with threads can't leave its user namespace, so this takes one of its own.
    """
    command = [sys.executable, "-I", "-S", "-c", _UNSHARE, str(flags | kernel.CLONE_NEWUSER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            answer = process.stdout.readline().decode().strip()
            if answer != "ready":
                raise OSError(1, f"new user namespace: {answer or 'the helper process ended'}")
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{process.pid}/{name}").write_text(ids.line, encoding="ascii")
            yield process.pid
        finally:
            process.kill()


# It ends by itself should its parent be killed meanwhile: its standard input is closed then.
_UNSHARE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(int(sys.argv[1])):
    sys.exit(os.strerror(ctypes.get_errno()))
print("ready", flush=True)
sys.stdin.read()
"""


def apply_sysctls(directory: Path, sysctls: Mapping[str, str], ids: IdMap | None = None) -> None:
    """Sets sysctls inside the pinned namespaces: after CNI, so that those of one interface find it. Blocking."""

    def work() -> None:
        for kind in ("net", "ipc"):
            if (directory / kind).exists():
                kernel.setns(str(directory / kind), KINDS[kind])
        # Those of the network take a capability, those of an IPC namespace its own root and nobody else.
        for name, value in sorted(sysctls.items(), key=lambda item: sysctl_namespace(item[0]) == "ipc"):
            if ids is not None and sysctl_namespace(name) == "ipc":
                kernel.become_user(ids.host_id)
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
