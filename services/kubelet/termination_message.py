"""A container's last words: the file at its terminationMessagePath, or the tail of its log, by its policy."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from services.kubelet.container_config import ANNOTATION_MESSAGE_PATH, ANNOTATION_MESSAGE_POLICY
from services.kubelet.logs import tail_text

_MESSAGE_BYTES_MAX = 4096
_LOG_BYTES_MAX = 2048
_LOG_LINES_MAX = 80


def read(status: cri.ContainerStatus) -> str:
    """The message of an ended container; empty if it left none."""
    path = status.annotations.get(ANNOTATION_MESSAGE_PATH, "")
    policy = status.annotations.get(ANNOTATION_MESSAGE_POLICY, "File")
    message = ""
    host_path = next((m.host_path for m in status.mounts if path and m.container_path == path), "")
    if host_path:
        message = _read_tail(host_path)
    if not message and policy == "FallbackToLogsOnError" and status.exit_code != 0 and status.log_path:
        message = tail_text(Path(status.log_path), _LOG_LINES_MAX, _LOG_BYTES_MAX)
    return message


def _read_tail(path: str) -> str:
    """The end of the file.

    The container could have put anything there, so it is opened without following a link or waiting.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(fd).st_size
        file.seek(max(0, size - _MESSAGE_BYTES_MAX))
        return file.read(_MESSAGE_BYTES_MAX).decode(errors="replace")


def sandbox_info(info: dict[str, str]) -> tuple[int, str]:
    """(pid, path of the network namespace) out of the verbose `info` of a sandbox's status."""
    try:
        body = json.loads(info.get("info", "{}"))
    except ValueError:
        return 0, ""
    namespaces = body.get("runtimeSpec", {}).get("linux", {}).get("namespaces", []) or []
    path = next((n.get("path", "") for n in namespaces if n.get("type") == "network"), "")
    return int(body.get("pid") or 0), path
