"""How soon there is a cluster, and what that costs.

    .venv/bin/python -m benchmarks.start up [--times 3]        real nodes (as root): `cutaway up` in a new folder, until
                                                               its first pod is Ready
    .venv/bin/python -m benchmarks.start fixture [--times 5]   the cluster of `lab.testing`, alone and three at once

CPU seconds say more than seconds do where the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import testing
from tests.support import images

CUTAWAY = [sys.executable, "-m", "lab.cli"]
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "first"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": images.BUSYBOX, "command": ["sleep", "1000"]}],
    },
}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    """Memory of a process, in MB: resident, what is shared with others counted once for each."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024 / 1e6


def up_once(folder: Path, archive: Path) -> dict[str, float]:
    """Seconds from the command to: the command's end, the image loaded, the first pod Ready; and CPU seconds of all."""
    home = folder / "cluster"
    environment = os.environ | {"CUTAWAY_HOME": str(home)}

    def run(*arguments: str, stdin: str = "") -> None:
        subprocess.run(
            [*CUTAWAY, *arguments], env=environment, check=True, input=stdin, text=True, stdout=subprocess.DEVNULL
        )

    began, before = time.perf_counter(), os.times()
    seconds: dict[str, float] = {}
    try:
        run("up")
        seconds["up"] = time.perf_counter() - began
        after = os.times()
        states = [json.loads(path.read_text()) for path in (home / "components").glob("*.state.json")]
        seconds["cpu"] = sum(cpu_seconds(state["pid"]) for state in states if state["pid"])
        seconds["cpu"] += after.children_user + after.children_system - before.children_user - before.children_system
        run("image", "load", str(archive))
        seconds["image"] = time.perf_counter() - began
        run("kubectl", "apply", "-f", "-", stdin=json.dumps(POD))
        run("kubectl", "wait", "--for=condition=Ready", "pod/first", "--timeout=60s")
        seconds["pod"] = time.perf_counter() - began
    finally:
        run("down", "--purge")
    return seconds


def show(what: str, values: list[float], unit: str = "s") -> None:
    """Middle and range."""
    print(f"{what:<48} p50 {statistics.median(values):6.2f} {unit}   ({min(values):.2f} to {max(values):.2f})")


def up(times: int) -> None:
    """`cutaway up`, each time from nothing."""
    with tempfile.TemporaryDirectory(prefix="cutaway-bench-") as name:
        archive = images.busybox_archive(Path(name))
        runs = [up_once(Path(name) / str(number), archive) for number in range(times)]
    for key, what in (
        ("up", "cutaway up: every node Ready, every part healthy"),
        ("image", "… and an image loaded"),
        ("pod", "… and the first pod Ready"),
    ):
        show(what, [run[key] for run in runs])
    show("CPU of all until then", [run["cpu"] for run in runs], "CPU s")


def fixture_once(_number: int = 0) -> tuple[float, float, float]:
    """Seconds until it is ready, CPU seconds of its process, megabytes."""
    began = time.perf_counter()
    with testing.cluster() as running:
        return time.perf_counter() - began, cpu_seconds(running.pid), resident_megabytes(running.pid)


def fixture(times: int) -> None:
    """The cluster inside a test."""
    alone = [fixture_once() for _ in range(times)]
    show("fixture: ready", [each[0] for each in alone])
    show("fixture: CPU", [each[1] for each in alone], "CPU s")
    show("fixture: memory", [each[2] for each in alone], "MB")
    with ThreadPoolExecutor(3) as pool:
        show("fixture, three at once: ready", [each[0] for each in pool.map(fixture_once, range(3))])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("up", "fixture"))
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    up(arguments.times) if arguments.what == "up" else fixture(arguments.times)


if __name__ == "__main__":
    main()
