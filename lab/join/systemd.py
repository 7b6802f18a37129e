"""A joined host's processes as systemd units: `deploy/systemd/`, one instance of a template a process.

`cutaway@kubelet-web1.service` starts what `components/kubelet-web1.json` says; `cutaway-node.target` is all of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.cluster import PROJECT_ROOT
from lab.errors import LabError

SOURCE = PROJECT_ROOT / "deploy" / "systemd"
UNITS = Path("/etc/systemd/system")
TEMPLATE, TARGET = "cutaway@.service", "cutaway-node.target"
# Exists only while systemd is process 1 (sd_booted(3)).
BOOTED = Path("/run/systemd/system")
COMMAND_SECONDS = 90


def is_here() -> bool:
    """Whether this host runs under systemd."""
    return BOOTED.is_dir()


def rendered(name: str, home: Path) -> str:
    """A file of `deploy/systemd/` with this checkout and this folder in it."""
    text = (SOURCE / name).read_text()
    for word, value in (("@PYTHON@", sys.executable), ("@ROOT@", str(PROJECT_ROOT)), ("@HOME@", str(home))):
        text = text.replace(word, value)
    return text


def unit(process: str) -> str:
    """The unit of a process."""
    return f"cutaway@{process}.service"


def install(home: Path, processes: Sequence[str], directory: Path = UNITS) -> None:
    """Write the units, and start one for each process, now and at every start of the host."""
    for name in (TEMPLATE, TARGET):
        (directory / name).write_text(rendered(name, home))
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", TARGET, *map(unit, processes))


def stop(processes: Sequence[str]) -> None:
    """Stop some of them."""
    if is_here():
        _systemctl("stop", *map(unit, processes), check=False)


def remove(processes: Sequence[str], directory: Path = UNITS) -> None:
    """Stop them all and take the units away."""
    if is_here():
        _systemctl("disable", "--now", TARGET, *map(unit, processes), check=False)
    for name in (TEMPLATE, TARGET):
        (directory / name).unlink(missing_ok=True)
    if is_here():
        _systemctl("daemon-reload", check=False)


def _systemctl(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=COMMAND_SECONDS)
    if check and done.returncode != 0:
        raise LabError(f"systemctl {arguments[0]} failed: {done.stderr.strip()}", "`journalctl -xe` shows more")
