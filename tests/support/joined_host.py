"""A host of its own for `cutaway join`: a network namespace beyond a router, and a folder; nothing of the cluster's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab_cluster import CUTAWAY, ROOT
from tests.support.netns import Namespace, namespace

# 198.18.0.0/15 is for tests (RFC 2544): no machine's own network.
MASTER_IP, HOST_IP = "198.18.77.1", "198.18.77.2"
_LINK = "ctwjoin"


class Host:
    """Runs the `cutaway` command on it."""

    def __init__(self, network: Namespace, home: Path) -> None:
        self.network = network
        self.home = home

    def cutaway(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """How the command ended, whatever that is."""
        environment = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "CUTAWAY_SLOT")}
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "--", *CUTAWAY, *arguments],
            capture_output=True, text=True, timeout=timeout, cwd=ROOT,
            env=environment | {"CUTAWAY_HOME": str(self.home)},
        )  # fmt: skip

    def renew(self) -> None:
        """Renew every certificate now."""
        subprocess.run(
            ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "--",
             sys.executable, "-m", "lab.join.certificates", str(self.home), "--now"],
            check=True, timeout=60, cwd=ROOT,
        )  # fmt: skip


@contextmanager
def host(home: Path) -> Iterator[Host]:
    """A host at HOST_IP whose router, this machine, is MASTER_IP; whatever joined has left in the end."""
    with namespace() as network:
        inside = f"{_LINK}p"
        _ip("link", "add", _LINK, "type", "veth", "peer", "name", inside)
        try:
            _ip("link", "set", inside, "netns", str(network.pid))
            _ip("address", "add", f"{MASTER_IP}/30", "dev", _LINK)
            _ip("link", "set", _LINK, "up")
            network.run("ip", "address", "add", f"{HOST_IP}/30", "dev", inside)
            network.run("ip", "link", "set", inside, "up")
            network.run("ip", "route", "add", "default", "via", MASTER_IP)
            made = Host(network, home)
            try:
                yield made
            finally:
                made.cutaway("leave")
        finally:
            subprocess.run(["ip", "link", "delete", _LINK], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
