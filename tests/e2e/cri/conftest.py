"""A node's runtime for each module: containerd and the shim as processes, real containers, a bridge network."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.containerd import Containerd, Shim, available
from tests.support.cri_client import CriClient
from tests.support.images import busybox_archive

_ROOT = Path(__file__).parents[3]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = available()
    for item in items:
        if Path(str(item.fspath)).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.root)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


class Node:
    """containerd, the shim and a client of it."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.containerd = Containerd(directory / "containerd")
        self.shim = Shim(self.containerd, directory / "shim", **settings)
        self.client: CriClient = None  # type: ignore[assignment]

    def start(self) -> None:
        self.containerd.start()
        self.shim.start()
        self.connect()

    def connect(self) -> None:
        if self.client:
            self.client.close()
        self.client = CriClient(self.shim.socket, self.directory, "cutaway")
        self.client.runtime.Version(cri.VersionRequest(), wait_for_ready=True, timeout=20)

    def restart_shim(self) -> None:
        """What a crash of the shim and its supervisor do."""
        self.shim.kill()
        self.shim.start()
        self.connect()

    def restart_containerd(self) -> None:
        self.containerd.kill()
        self.containerd.start()

    def load(self, archive: Path) -> str:
        command = [sys.executable, "-m", "cri.images.load", "--socket", str(self.containerd.socket), str(archive)]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=_ROOT).stdout.strip()

    def stop(self) -> None:
        try:
            if self.client:
                self.client.remove_everything()
                self.client.close()
        finally:
            self.shim.stop()
            self.containerd.stop()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_archive(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def module_node(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"))
    try:
        node.start()
        node.load(archive)
        yield node
    finally:
        node.stop()


@pytest.fixture
def node(module_node: Node) -> Iterator[Node]:
    yield module_node
    module_node.client.remove_everything()
