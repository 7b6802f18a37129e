"""A real cluster for end-to-end tests: `cutaway up` in a temporary folder, on a slot of its own, taken down whatever
happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CUTAWAY = [sys.executable, "-m", "lab.cli"]
WEB_IMAGE = "nginx:1.14.2"


def why_not() -> str:
    """Why real nodes can't run here; empty if they can."""
    from lab import doctor

    obstacle = doctor.first_obstacle(ROOT)
    return f"{obstacle.message}: {obstacle.way_out}" if obstacle else ""


class LabCluster:
    """Commands against one cluster."""

    def __init__(self, home: Path, slot: int | None = None) -> None:
        """`slot` None: the first free one."""
        self.home = home
        self.environment = dict(os.environ) | {
            "CUTAWAY_HOME": str(home),
            "KUBECONFIG": str(home / "admin.kubeconfig"),
        }
        if slot is not None:
            self.environment["CUTAWAY_SLOT"] = str(slot)

    def cutaway(self, *arguments: str, timeout: float = 180, check: bool = True) -> str:
        """Run the `cutaway` command; its output."""
        return self._run([*CUTAWAY, *arguments], timeout, check)

    def run_cutaway(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run the `cutaway` command; how it ended, whatever that is."""
        return subprocess.run(
            [*CUTAWAY, *arguments], capture_output=True, text=True, timeout=timeout, env=self.environment, cwd=ROOT
        )

    def kubectl(self, *arguments: str, timeout: float = 90, stdin: str | None = None, check: bool = True) -> str:
        """Run the real kubectl; its output."""
        return self._run([str(Path(sys.executable).parent / "kubectl"), *arguments], timeout, check, stdin)

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def _run(self, argv: list[str], timeout: float, check: bool, stdin: str | None = None) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, env=self.environment, cwd=ROOT, input=stdin
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv[-6:])} failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def status(self) -> dict[str, dict[str, Any]]:
        """`cutaway status -o json` by name."""
        return {item["name"]: item for item in json.loads(self.cutaway("status", "-o", "json", check=False))}

    def node_ip(self, node: str) -> str:
        """A node's InternalIP."""
        addresses = self.get("node", node)["status"]["addresses"]
        return next(item["address"] for item in addresses if item["type"] == "InternalIP")


def eventually(check: Callable[[], Any], *, seconds: float = 60, what: str = "") -> Any:
    """The first truthy result of `check` within the deadline; an AssertionError with the last failure otherwise."""
    deadline = time.monotonic() + seconds
    pause, last = 0.05, None
    while True:
        try:
            result = check()
            if result:
                return result
            last = result
        except (AssertionError, OSError, KeyError, IndexError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or check}; last: {last!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


@contextmanager
def running(home: Path, *, nodes: int, slot: int | None = None, keep_logs: Path | None = None) -> Iterator[LabCluster]:
    """A cluster with so many real nodes; gone afterwards, with all that it made on the machine."""
    cluster = LabCluster(home, slot)
    try:
        cluster.cutaway("up", "--nodes", str(nodes))
        yield cluster
    finally:
        if keep_logs is not None:
            shutil.copytree(home / "logs", keep_logs, dirs_exist_ok=True)
        cluster.cutaway("down", "--purge", check=False)


def load_web_image(cluster: LabCluster) -> None:
    """Put the example's image on every node, out of Debian's packages under its own name."""
    from lab import cluster as clusters
    from lab import images

    archive = images.build_example(clusters.require(cluster.home), WEB_IMAGE)
    cluster.cutaway("image", "load", str(archive))
