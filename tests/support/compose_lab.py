"""The cluster of containers as the tests of `make lab-test` see it: docker-compose, kubectl inside, steady traffic."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NODES = ("node1", "node2", "node3")
NODE_IPS = {name: f"10.198.0.{11 + index}" for index, name in enumerate(NODES)}
PROJECT = "cutaway"

# Runs in a node: asks five times at least and until its input ends, then tells what happened. Each request has a
# connection of its own, so that each is balanced anew.
_TRAFFIC = """
import json, select, sys, time, urllib.request
url, host = sys.argv[1:3]
good, bad = 0, []
print("begun", flush=True)
while good + len(bad) < 5 or not select.select([sys.stdin], [], [], 0.02)[0]:
    began = time.monotonic()
    try:
        request = urllib.request.Request(url, headers={"Host": host} if host else {})
        good += b"hello from" in urllib.request.urlopen(request, timeout=5).read()
    except OSError as error:
        bad.append(f"{error} after {time.monotonic() - began:.2f} s")
print(json.dumps({"good": good, "bad": bad}))
"""


def why_not() -> str:
    """Why no engine can run the lab here; empty if one can."""
    if not os.environ.get("LAB_COMPOSE"):
        return "`make lab-test` runs this: it starts the lab and says by which files"
    if shutil.which("docker") is None:
        return "docker is not installed"
    answer = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=20)
    return "" if answer.returncode == 0 else f"no Docker engine answers: {answer.stderr.strip().splitlines()[-1]}"


class Lab:
    """Commands against the running lab."""

    def __init__(self, compose: str) -> None:
        self._compose = shlex.split(compose)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 180, stdin: bytes | None = None) -> str:
        """Run docker-compose; its output."""
        return _run([*self._compose, *arguments], check, timeout, stdin)

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Run docker; its output."""
        return _run(["docker", *arguments], check, 60, None)

    def inside(self, service: str, *argv: str, check: bool = True, stdin: bytes | None = None) -> str:
        """Run a program in a container."""
        return self.compose("exec", "-T", service, *argv, check=check, stdin=stdin)

    def kubectl(self, *arguments: str, check: bool = True, stdin: bytes | None = None, by: str = "apiserver-2") -> str:
        """The real kubectl, in a master."""
        return self.inside(by, "kubectl", *arguments, check=check, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def ready_nodes(self) -> set[str]:
        """The nodes whose Ready is True."""
        return {
            node["metadata"]["name"]
            for node in self.get("nodes")["items"]
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
        }

    def container(self, service: str) -> str:
        """A service's container."""
        return self.compose("ps", "-q", service).strip()

    def leader(self, component: str) -> str:
        """The service whose instance holds a component's Lease."""
        holder = self.get("lease", component, "-n", "kube-system")["spec"]["holderIdentity"]
        for index in (1, 2):
            service = f"{component.removeprefix('kube-')}-{index}"
            if self.inside(service, "hostname").strip() in holder:
                return service
        raise AssertionError(f"nobody of {component} has {holder}")

    @contextmanager
    def traffic(self, url: str, host: str = "", by: str = "node1") -> Iterator[dict[str, Any]]:
        """Steady requests from a node while the block runs; `good` and `bad` are filled in at its end."""
        command = [*self._compose, "exec", "-T", by, "python", "-c", _TRAFFIC, url, host]
        seen: dict[str, Any] = {}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "begun"
        try:
            yield seen
        finally:
            output, _ = process.communicate("end\n", timeout=60)
            seen.update(json.loads(output or "{}"))


def _run(argv: list[str], check: bool, timeout: float, stdin: bytes | None) -> str:
    done = subprocess.run(argv, capture_output=True, timeout=timeout, input=stdin or b"")
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise AssertionError(f"{' '.join(argv[-6:])} failed ({done.returncode}):\n{said[-2000:]}")
    return done.stdout.decode(errors="replace")
