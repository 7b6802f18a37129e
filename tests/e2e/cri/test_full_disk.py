"""A node whose disk is full: what needs room is refused and says why, what runs goes on; with room all is well."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri

from tests.e2e.cri.conftest import Node
from tests.support.containerd import wait_until
from tests.support.images import busybox_archive

MEBIBYTES = 40


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Node, Path]]:
    """(a node on a small disk of its own, that disk)."""
    image = busybox_archive(tmp_path / "image")
    disk = Path(tempfile.mkdtemp(prefix="full-"))  # short: sockets are below it
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(disk)], check=True)
    try:
        node = Node(disk / "node")
        try:
            node.start()
            node.load(image)
            yield node, disk
        finally:
            (disk / "filler").unlink(missing_ok=True)
            node.stop()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
        disk.rmdir()


def fill(disk: Path) -> Path:
    """Leave no byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue
    return filler


def test_what_needs_room_is_refused_and_what_runs_goes_on(small: tuple[Node, Path], tmp_path: Path) -> None:
    node, disk = small
    pod = node.client.run_pod()
    container = pod.run("sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done")
    container.wait_output("line 3\n")
    sandboxes = len(node.client.sandboxes())
    filler = fill(disk)
    with pytest.raises(grpc.RpcError) as caught:
        node.client.run_pod()
    assert "no space left on device" in caught.value.details().lower()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        node.load(busybox_archive(tmp_path / "another", "cutaway.test/another:1", {"Cmd": ["true"]}))
    assert "no space left on device" in (failed.value.stderr + failed.value.stdout).lower()
    # An exec needs room as well here: runc's files are on the same disk.
    assert container.status().state == cri.CONTAINER_RUNNING
    filler.unlink()
    assert container.exec("echo", "alive").stdout == b"alive\n"
    seen = len(container.records())
    wait_until(lambda: len(container.records()) > seen + 3, what="lines of the log after there is room again")
    assert pod.shell("echo new") == "new\n"
    other = node.client.run_pod()
    other.stop()
    other.remove()
    assert len(node.client.sandboxes()) == sandboxes
