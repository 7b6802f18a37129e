"""Processes that containerd has forgotten.

When this process is killed in the middle of a task's creation, containerd gives the creation up and its own runtime
does not: a shim process with a container that never starts stays, and no call of containerd's API knows of it.
Whoever finds a container whose start was under way and that has no task asks here for what may be left of it.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cri import kernel
from cri.config import Config
from cri.logs import log

_SHIM = b"containerd-shim-runc-v2"
_DEFAULT_RUNC_ROOT = "/run/containerd/runc"
_RUNC_SECONDS = 20


def end(container_id: str, config: Config, *, shim_too: bool) -> None:
    """Ends the container that runc still has, lets go of its root, and ends its shim process. Blocking, idempotent.

    `shim_too` is for when no other container can be in that shim process.
    """
    root = Path(config.runc_root or _DEFAULT_RUNC_ROOT) / config.namespace
    if (root / container_id).exists():
        log.warning("ending a container that containerd has forgotten", container=container_id)
        command = [config.runc_binary or "runc", "--root", str(root), "delete", "--force", container_id]
        try:
            subprocess.run(command, capture_output=True, timeout=_RUNC_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.error("runc could not delete it", container=container_id, error=str(error))
    if shim_too:
        for pid in _shims(container_id, config.containerd):
            log.warning("ending a shim process that containerd has forgotten", container=container_id, pid=pid)
            os.kill(pid, signal.SIGKILL)
    for target in _roots(container_id, config.namespace):
        kernel.unmount(target)


def _shims(container_id: str, socket: str) -> Iterator[int]:
    """The shim processes that were started for this container by our containerd."""
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if words[0].endswith(_SHIM) and container_id.encode() in words and socket.encode() in words:
            yield int(path.name)


def _roots(container_id: str, namespace: str) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split()[4] for line in lines if line.split()[4].endswith(f"/{namespace}/{container_id}/rootfs")]
