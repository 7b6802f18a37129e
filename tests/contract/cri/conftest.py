"""One suite over two runtimes: Cutaway's shim, and containerd's own CRI plugin (the same containerd binary)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.containerd import Containerd, Shim, available
from tests.support.cri_client import CriClient
from tests.support.images import busybox_archive

RUNTIMES = ("cutaway", "containerd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = available()
    for item in items:
        if Path(str(item.fspath)).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.root)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def load(containerd: Containerd, archive: Path) -> None:
    if containerd.cri_plugin:
        command = ["ctr", "-a", str(containerd.socket), "-n", "k8s.io", "images", "import", str(archive)]
    else:
        command = [sys.executable, "-m", "cri.images.load", "--socket", str(containerd.socket), str(archive)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[3])


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_archive(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session", params=RUNTIMES)
def session_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, archive: Path
) -> Iterator[CriClient]:
    directory = tmp_path_factory.mktemp(f"cri-{request.param}")
    containerd = Containerd(directory / "containerd", cri_plugin=request.param == "containerd")
    shim = None
    try:
        containerd.start()
        load(containerd, archive)
        socket = containerd.socket
        if request.param == "cutaway":
            shim = Shim(containerd, directory / "shim")
            shim.start()
            socket = shim.socket
        client = CriClient(socket, directory, request.param)
        client.runtime.Version(cri.VersionRequest(), wait_for_ready=True, timeout=20)
        yield client
        client.remove_everything()
        client.close()
    finally:
        if shim:
            shim.stop()
        containerd.stop()


@pytest.fixture
def client(session_client: CriClient) -> Iterator[CriClient]:
    yield session_client
    session_client.remove_everything()


@pytest.fixture
def ours(client: CriClient) -> CriClient:
    """For what containerd 1.6's plugin does not have yet."""
    if client.name != "cutaway":
        pytest.skip("newer than containerd 1.6's plugin")
    return client
