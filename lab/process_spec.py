"""What the supervisor is told about a process, and what it tells about it: two small JSON files a process.

`<components>/<name>.json` says what should run (written by `cutaway`), `<components>/<name>.state.json` what runs
(written by the supervisor). Both are replaced atomically, so a reader never sees half a file.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SPEC_SUFFIX = ".json"
STATE_SUFFIX = ".state.json"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: how to start it, where it belongs, where its health is answered."""

    name: str
    # "apiserver", "kubelet", "containerd" …; several processes may be of one component.
    component: str
    argv: list[str]
    log: str
    # Name of the node, or empty for the control plane.
    node: str = ""
    # Path of a network namespace to run in; empty: this host's.
    network_namespace: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    # "https://host:port/readyz", "grpc-unix:///path" or "unix:///path".
    health: str = ""
    # Where others reach it, for people: "127.0.0.1:6443", a socket's path.
    address: str = ""
    stop_seconds: float = 10.0
    # What asks it to end.
    stop_signal: str = "SIGTERM"
    # Of the configuration file: a changed one makes a changed spec, and the supervisor starts the process anew.
    config_digest: str = ""


@dataclass(slots=True)
class ProcessState:
    """What became of it. `start_ticks` (field 22 of /proc/PID/stat) tells a process from a later one with the same
    pid."""

    pid: int = 0
    start_ticks: int = 0
    restarts: int = 0
    stopped: bool = False
    last_exit: int | None = None
    started_at: float = 0.0


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a file's content atomically."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file's content atomically: on a full disk what was there stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch(mode=mode)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_spec(directory: Path, spec: ProcessSpec) -> bool:
    """Write a spec; whether it is new or differs from what was there."""
    path = directory / f"{spec.name}{SPEC_SUFFIX}"
    value = asdict(spec)
    if path.exists() and json.loads(path.read_text()) == value:
        return False
    write_json(path, value)
    return True


def read_specs(directory: Path) -> dict[str, ProcessSpec]:
    """Every spec in a directory, by name."""
    specs = {}
    for path in sorted(directory.glob(f"*{SPEC_SUFFIX}")):
        if not path.name.endswith(STATE_SUFFIX):
            spec = ProcessSpec(**json.loads(path.read_text()))
            specs[spec.name] = spec
    return specs


def read_state(directory: Path, name: str) -> ProcessState:
    """The last state that the supervisor wrote; an empty one if there is none."""
    try:
        return ProcessState(**json.loads((directory / f"{name}{STATE_SUFFIX}").read_text()))
    except FileNotFoundError:
        return ProcessState()


def write_state(directory: Path, name: str, state: ProcessState) -> None:
    """Record the state of a process."""
    write_json(directory / f"{name}{STATE_SUFFIX}", asdict(state))


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none (or only its zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command's name stands in parentheses and may contain anything, so split after the last one.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def is_alive(state: ProcessState) -> bool:
    """Whether the very process that `state` speaks of still runs."""
    return state.pid > 0 and state.start_ticks > 0 and start_ticks(state.pid) == state.start_ticks
