"""A network namespace for one test: made by `unshare`, gone with its process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class Namespace:
    """Runs programs inside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 30) -> str:
        """A program's output. Raises AssertionError with what it said."""
        command = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A new namespace with its loopback up."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "ready"
        yield Namespace(holder.pid)
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(timeout=10)


def run_in(pin: object, *argv: str) -> str:
    """A program's output inside the namespace that a file pins."""
    return subprocess.run(["nsenter", f"--net={pin}", "--", *argv], capture_output=True, text=True, timeout=30).stdout
