"""The cgroup tree of pods on version 2: what is written where, on a tree of files and on the kernel's own."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lightkube.models import core_v1

from cri import cgroups as cri_cgroups
from services.kubelet import container_config
from services.kubelet.cgroups import MOUNT, Cgroups, has_swap_controller
from services.kubelet.container_config import NodeSettings

CONTROLLERS = "cpuset cpu io memory pids"
FILES = ("cpu.weight", "cpu.max", "memory.max", "pids.max", "cgroup.procs")


def pod(requests: dict[str, str] | None = None, limits: dict[str, str] | None = None) -> core_v1.Pod:
    container = {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}}
    value = {"metadata": {"name": "p", "uid": "u-1"}, "spec": {"containers": [container]}}
    return msgspec.convert(value, core_v1.Pod)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that behaves as cgroup2 does on mkdir: the files of a cgroup are there at once."""

    def fill(directory: Path) -> None:
        (directory / "cgroup.controllers").write_text(CONTROLLERS)
        (directory / "cgroup.subtree_control").write_text("")
        for name in FILES:
            (directory / name).write_text("")

    make = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **more: Any) -> None:
        new = not self.exists()
        make(self, *arguments, **more)
        if new:
            fill(self)

    fill(tmp_path)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    return tmp_path


def test_limits_are_written_in_version_2s_files(tree: Path) -> None:
    cgroups = Cgroups("/node", mount=tree, pods_pids_limit=99)
    cgroups.set_up_node()
    path = cgroups.set_up_pod(pod({"cpu": "500m", "memory": "64Mi"}, {"cpu": "1", "memory": "128Mi"}))
    assert path == "/node/kubepods/burstable/podu-1"
    found = {name: (tree / path.lstrip("/") / name).read_text() for name in FILES}
    # 512 shares of 2..262144 become a weight of 1..10000 by upstream's formula.
    assert found == {
        "cpu.weight": "20", "cpu.max": "100000 100000", "memory.max": str(128 << 20), "pids.max": "99",
        "cgroup.procs": "",
    }  # fmt: skip
    assert (tree / "node/kubepods/besteffort/cpu.weight").read_text() == "1"
    assert cgroups.known_pods() == {"u-1": path}


def test_every_controller_is_handed_down_one_by_one(tree: Path) -> None:
    written: list[tuple[str, str]] = []
    write = Path.write_text

    def note(self: Path, text: str, *arguments: Any, **more: Any) -> int:
        if self.name == "cgroup.subtree_control" and text:
            written.append((str(self.parent.relative_to(tree)), text))
            if text == "+cpu" and self.parent == tree:
                raise OSError(16, "busy")  # as on a host with realtime processes
        return write(self, text, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", note)
        Cgroups("/node", mount=tree).set_up_pod(pod())
    assert [text for parent, text in written if parent == "."] == [f"+{name}" for name in CONTROLLERS.split()]
    assert ("node/kubepods/besteffort", "+memory") in written


def test_qos_classes_weigh_what_their_pods_request(tree: Path) -> None:
    cgroups = Cgroups("/node", mount=tree)
    cgroups.set_up_node()
    weight = tree / "node/kubepods/burstable/cpu.weight"
    half = pod({"cpu": "500m"})
    cgroups.set_qos_shares([half, half, pod(), pod(limits={"cpu": "1", "memory": "1Mi"})])
    assert weight.read_text() == "39"  # 1024 shares
    weight.write_text("5")
    cgroups.set_qos_shares([half, half])
    assert weight.read_text() == "5", "nothing has changed, so nothing is written"
    cgroups.set_qos_shares([half, half], again=True)
    assert weight.read_text() == "39"
    cgroups.set_qos_shares([])
    assert weight.read_text() == (tree / "node/kubepods/besteffort/cpu.weight").read_text() == "1"


def test_swap_is_turned_off_where_the_kernel_can(tree: Path) -> None:
    assert not has_swap_controller(tree, own="/")
    (tree / "init").mkdir()
    (tree / "init" / "memory.swap.max").write_text("max")
    assert has_swap_controller(tree, own="/")
    assert has_swap_controller(tree, own="/init")
    assert not has_swap_controller(tree, own="/other")
    given = pod()
    for able, expected in (
        (False, {"memory.oom.group": "1"}),
        (True, {"memory.oom.group": "1", "memory.swap.max": "0"}),
    ):
        node = NodeSettings("n", "/logs", cgroup_v2=True, swap_controller=able)
        assert dict(container_config.linux_resources(given, given.spec.containers[0], node).unified) == expected


def test_usage_is_read_from_version_2s_files(tmp_path: Path) -> None:
    """Figures as a container's cgroup of Linux 6.1 has them."""
    files = {
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n",
        "memory.current": "7000\n",
        "memory.max": "max\n",
        "memory.stat": "anon 4000\nfile 2000\ninactive_file 1500\npgfault 33\npgmajfault 2\n",
        "memory.swap.current": "10\n",
        "memory.swap.max": "100\n",
        "memory.events": "low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\noom_group_kill 1\n",
        "pids.current": "3\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    usage = cri_cgroups.read({"": tmp_path})
    assert usage == cri_cgroups.Usage(
        cpu_nanoseconds=1_500_000, memory_usage=7000, memory_working_set=5500, memory_rss=4000, memory_limit=None,
        page_faults=33, major_page_faults=2, swap_usage=10, swap_available=90, processes=3,
    )  # fmt: skip
    assert cri_cgroups.oom_kills_below({"": tmp_path}) == 2


@pytest.fixture
def kernels() -> Iterator[tuple[Path, str]]:
    """(mount, a name of our own) of the kernel's cgroup2, wherever it is mounted."""
    mount = MOUNT if (MOUNT / "cgroup.controllers").exists() else MOUNT / "unified"
    if os.geteuid() != 0 or not os.access(mount / "cgroup.subtree_control", os.W_OK):
        pytest.skip("needs root and a cgroup2 mount that can be written")
    name = f"cutaway-test-{uuid.uuid4().hex[:8]}"
    before = (mount / "cgroup.subtree_control").read_text().split()
    yield mount, name
    if (mount / name).exists():
        for directory, _, _ in os.walk(mount / name, topdown=False):
            os.rmdir(directory)
    for controller in (mount / "cgroup.subtree_control").read_text().split():
        if controller not in before:
            (mount / "cgroup.subtree_control").write_text(f"-{controller}")


def test_the_kernels_own_version_2(kernels: tuple[Path, str]) -> None:
    mount, name = kernels
    cgroups = Cgroups(f"/{name}", mount=mount)
    path = cgroups.set_up_pod(pod(limits={"cpu": "1", "memory": "128Mi"}))
    directory = mount / path.lstrip("/")
    available = set((mount / "cgroup.controllers").read_text().split())
    assert set((directory / "cgroup.controllers").read_text().split()) == available
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            (directory / "container").mkdir()
            (directory / "container" / "cgroup.procs").write_text(str(process.pid))
            assert cgroups.known_pods() == {"u-1": path}
            assert not cgroups.remove_path(path)
        finally:
            process.kill()
    assert cgroups.remove_path(path)
    assert not directory.exists()
