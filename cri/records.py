"""What is kept on disk so that a restarted shim knows what its predecessor knew.

A sandbox has no containerd object, so its record is a file. A container's unchanging part travels inside
containerd's container object (an extension), so that the two are created and deleted as one; its status, which
changes, is a file. Files are replaced atomically; they are not synced, because after a power failure the processes
that they describe are gone too, and a record that can't be read then counts as absent.
"""

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

EXTENSION_NAME = "cutaway.dev/cri-container"
EXTENSION_TYPE = "cutaway.dev/cri/v1/Container"


class SandboxRecord(msgspec.Struct, kw_only=True):
    id: str
    config: bytes
    """runtime.v1.PodSandboxConfig."""
    runtime_handler: str = ""
    created_at: int = 0
    """Nanoseconds since the epoch, as all times here."""
    ready: bool = True
    ips: list[str] = []
    host_network: bool = False
    init_pid: int = 0
    """The process that holds a shared pid namespace, or 0."""


class ContainerRecord(msgspec.Struct, kw_only=True):
    sandbox_id: str
    config: bytes
    """runtime.v1.ContainerConfig."""
    image_ref: str
    image_id: str
    created_at: int
    log_path: str = ""
    stop_signal: str = ""
    uid: int = 0
    gid: int = 0
    groups: list[int] = []


class StatusRecord(msgspec.Struct, kw_only=True):
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    oom_killed: bool = False
    resources: bytes = b""
    """runtime.v1.LinuxContainerResources as last updated, if they were."""


R = TypeVar("R", bound=msgspec.Struct)

encode = msgspec.json.encode


def decode(data: bytes, kind: type[R]) -> R:
    return msgspec.json.decode(data, type=kind)


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces the file at once: a reader, or a crash in between, sees the old bytes or the new."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read(path: Path, kind: type[R]) -> R | None:
    """The record, or None where there is none that can be read."""
    try:
        return decode(path.read_bytes(), kind)
    except (OSError, msgspec.DecodeError):
        return None
