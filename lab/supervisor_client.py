"""Speaks to a cluster's supervisor, and starts it where there is none."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.errors import LabError

START_SECONDS = 10.0
COMMAND_SECONDS = 120.0


def call(directory: Path, do: str, name: str = "", *, timeout: float = COMMAND_SECONDS) -> dict[str, Any]:
    """Send one command; its answer. Raises LabError if there is no supervisor or it refuses."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(directory / "run" / "supervisor.sock"))
            connection.sendall(json.dumps({"do": do, "name": name}).encode() + b"\n")
            line = connection.makefile().readline()
        except (OSError, TimeoutError) as error:
            raise LabError(f"the cluster's supervisor does not answer ({error})", "cutaway up starts it") from error
    answer: dict[str, Any] = json.loads(line) if line else {"ok": False, "error": "it closed the connection"}
    if not answer["ok"]:
        raise LabError(answer["error"])
    return answer


def is_running(directory: Path) -> bool:
    """Whether a supervisor answers."""
    try:
        call(directory, "ping", timeout=2)
    except LabError:
        return False
    return True


def ensure_running(directory: Path, root: Path) -> None:
    """Start the supervisor as a daemon unless one answers. `root` is the folder that the project's packages are
    imported from."""
    if is_running(directory):
        return
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    ready, started = os.pipe()
    with open(directory / "logs" / "supervisor.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "lab.supervisor", str(directory), str(started)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=root, pass_fds=[started],
        )  # fmt: skip
    os.close(started)
    # The supervisor closes its end when it serves; so does its death. Either way this wait is over.
    select.select([ready], [], [], START_SECONDS)
    os.close(ready)
    if not is_running(directory):
        raise LabError("the supervisor did not start", f"see {directory}/logs/supervisor.log")
