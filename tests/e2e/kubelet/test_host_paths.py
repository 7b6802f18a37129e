"""hostPath by every type, and mounts that come after the container's start (mount propagation)."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root


def _volumes(paths: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A pod's volumes and a container's mounts of {name: (path, type)}."""
    return {
        "volumes": [{"name": n, "hostPath": {"path": path, "type": kind}} for n, (path, kind) in paths.items()],
        "mounts": [{"name": name, "mountPath": f"/in/{name}"} for name in paths],
    }


async def test_every_type_that_fits_is_mounted_and_what_may_be_made_is(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("content")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        made = _volumes(
            {
                "any": (str(tmp_path / "dir"), ""),
                "dir": (str(tmp_path / "dir"), "Directory"),
                "newdir": (str(tmp_path / "new/dir"), "DirectoryOrCreate"),
                "file": (str(tmp_path / "file"), "File"),
                "newfile": (str(tmp_path / "newfile"), "FileOrCreate"),
                "socket": (str(tmp_path / "socket"), "Socket"),
                "char": ("/dev/null", "CharDevice"),
            }
        )
        checks = (
            "cd /in && test -d any -a -d dir -a -d newdir -a -f newfile -a -S socket -a -c char && echo more > newfile"
        )
        ready = {"exec": {"command": ["test", "-s", "/in/newfile"]}, "periodSeconds": 1}
        container = busybox(script=f"{checks}; sleep 600", volumeMounts=made["mounts"], readinessProbe=ready)
        await cluster.pod("p", cluster.namespace, {"containers": [container], "volumes": made["volumes"]})
        await cluster.until_ready("p", cluster.namespace)
        said = cluster.kubectl("exec", "-n", cluster.namespace, "p", "--", "cat", "/in/file", "/in/newfile")
    assert said == "contentmore\n"
    assert ((tmp_path / "new/dir").stat().st_mode & 0o777, (tmp_path / "newfile").read_text()) == (0o755, "more\n")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("Directory", "a directory"),
        ("File", "a file"),
        ("Socket", "a socket"),
        ("CharDevice", "a character device"),
        ("BlockDevice", "a block device"),
    ],
)
async def test_what_is_not_of_its_type_keeps_the_pod_waiting_and_says_so(
    cluster: Cluster, tmp_path: Path, kind: str, what: str
) -> None:
    path = tmp_path / "thing"
    if kind == "Directory":
        path.touch()
    else:
        path.mkdir()
    made = _volumes({"h": (str(path), kind)})
    await cluster.pod(
        "p", cluster.namespace, {"containers": [busybox(volumeMounts=made["mounts"])], "volumes": made["volumes"]}
    )
    await cluster.told(cluster.namespace, f"hostPath type check failed: {path} is not {what}")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts are told to others."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
    (tmp_path / "below").mkdir()
    yield tmp_path
    for _ in range(3):
        subprocess.run(["umount", "-l", str(tmp_path / "below")], check=False, capture_output=True)
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def _mount_with_file(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    (path / "file").write_text("later")


async def test_a_mount_made_later_on_the_node_is_seen_by_host_to_container_and_not_by_none(
    cluster: Cluster, shared: Path
) -> None:
    volumes = [{"name": "h", "hostPath": {"path": str(shared)}}]
    mounts = [
        {"name": "h", "mountPath": "/slave", "mountPropagation": "HostToContainer"},
        {"name": "h", "mountPath": "/private", "mountPropagation": "None"},
    ]
    await cluster.pod("p", cluster.namespace, {"containers": [busybox(volumeMounts=mounts)], "volumes": volumes})
    await cluster.until_ready("p", cluster.namespace)
    _mount_with_file(shared / "below")
    said = cluster.kubectl("exec", "-n", cluster.namespace, "p", "--", "sh", "-c", "ls /slave/below /private/below")
    assert said.split() == ["/slave/below:", "file", "/private/below:"] or said.split() == [
        "/private/below:", "/slave/below:", "file",
    ]  # fmt: skip


async def test_a_mount_made_in_a_bidirectional_container_is_seen_on_the_node(cluster: Cluster, shared: Path) -> None:
    if os.environ.get("CUTAWAY_TEST_RUNTIME") == "plugin":
        pytest.skip("containerd's plugin can't give privileged containers here: the machine lacks SYS_RESOURCE")
    volumes = [{"name": "h", "hostPath": {"path": str(shared)}}]
    mounts = [{"name": "h", "mountPath": "/both", "mountPropagation": "Bidirectional"}]
    script = "mount -t tmpfs tmpfs /both/below && echo inside > /both/below/file && touch /both/ready; exec sleep 600"
    container = busybox(
        script=script, volumeMounts=mounts, securityContext={"privileged": True},
        readinessProbe={"exec": {"command": ["test", "-e", "/both/ready"]}, "periodSeconds": 1},
    )  # fmt: skip
    await cluster.pod("p", cluster.namespace, {"containers": [container], "volumes": volumes})
    await cluster.until_ready("p", cluster.namespace)
    assert (shared / "below" / "file").read_text() == "inside\n"


async def test_what_is_mounted_below_a_read_only_volume_is_read_only_too_where_that_is_asked_for(
    cluster: Cluster, shared: Path
) -> None:
    _mount_with_file(shared / "below")
    volumes = [{"name": "h", "hostPath": {"path": str(shared)}}]
    mounts = [
        {"name": "h", "mountPath": "/plain", "readOnly": True},
        {"name": "h", "mountPath": "/possible", "readOnly": True, "recursiveReadOnly": "IfPossible"},
        {"name": "h", "mountPath": "/enabled", "readOnly": True, "recursiveReadOnly": "Enabled"},
    ]
    await cluster.pod("p", cluster.namespace, {"containers": [busybox(volumeMounts=mounts)], "volumes": volumes})
    pod = await cluster.until_ready("p", cluster.namespace)
    shown = {m.mountPath: m.recursiveReadOnly for m in pod.status.containerStatuses[0].volumeMounts}
    script = "for d in plain possible enabled; do touch /$d/x /$d/below/$d 2>/dev/null; done; ls /plain/below"
    found = cluster.kubectl("exec", "-n", cluster.namespace, "p", "--", "sh", "-c", script).split()
    assert not (shared / "x").exists()
    if os.environ.get("CUTAWAY_TEST_RUNTIME") == "plugin":
        return  # containerd 1.6's plugin does not know such mounts
    assert (shown["/plain"], shown["/possible"], shown["/enabled"]) == ("Disabled", "Enabled", "Enabled")
    assert found == ["file", "plain"]
