"""nfs and iscsi at the boundary to the node's own tools: the exact commands, what is done with the disk, the clean-up.

`iscsiadm` and `mount -t nfs` are recorded programs (the kernel that tests run on may have neither client); the disk
behind them is a real one, a loop device, that is really formatted, mounted and given up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightkube.models import core_v1

from services.kubelet.volumes import mounting, persistent, san
from services.kubelet.volumes.context import VolumeContext, VolumeError
from services.kubelet.volumes.manager import Volumes
from tests.support.kubelet_pods import pod

IQN = f"iqn.2026-01.dev.cutaway.test:disk{os.getpid()}"
PORTAL = "192.0.2.1:3260"
LINK = Path(f"/dev/disk/by-path/ip-{PORTAL}-iscsi-{IQN}-lun-0")
ISCSIADM = """#!/bin/sh
echo "iscsiadm $*" >> {log}
case "$*" in *{fails}*) echo "iscsiadm: no route to portal" >&2; exit 8;; esac
case "$*" in
  *--login) mkdir -p /dev/disk/by-path; losetup -f --show {image} > {device}; ln -sf $(cat {device}) {link};;
  *--logout) [ -e {link} ] || exit 21; losetup -d $(cat {device}); rm -f {link};;
esac
"""
MOUNT = """#!/bin/sh
case "$*" in "-t nfs "*) echo "mount $*" >> {log}; for last; do :; done; exec {real} -t tmpfs tmpfs "$last";; esac
exec {real} "$@"
"""


class Tools:
    """The recorded programs and their log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.image = directory / "disk.img"
        self.log.touch()
        with self.image.open("wb") as file:
            file.truncate(16 << 20)
        self.write(fails="nothing-at-all")

    def write(self, fails: str) -> None:
        fill = {"log": self.log, "image": self.image, "device": self.directory / "device", "link": LINK, "fails": fails}
        self._program("iscsiadm", ISCSIADM.format(**fill))
        self._program("mount", MOUNT.format(log=self.log, real=shutil.which("mount", path="/usr/bin:/bin")))

    def _program(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)

    def attached(self) -> bool:
        return LINK.exists()

    def format(self) -> None:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)

    def loop_device(self) -> str:
        done = subprocess.run(["losetup", "-f", "--show", str(self.image)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices")
    directory = tmp_path / "tools"
    directory.mkdir()
    found = Tools(directory)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    yield found
    mounting.unmount_below(str(tmp_path))
    LINK.unlink(missing_ok=True)
    for line in subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout.splitlines():
        if str(found.image) in line:
            subprocess.run(["losetup", "-d", line.partition(":")[0]], check=True)


class Objects:
    """Secrets by name, as the kubelet has them of the apiserver."""

    def __init__(self, **secrets: core_v1.Secret) -> None:
        self._secrets = secrets

    async def secret(self, _namespace: str, name: str, _user: str = "") -> core_v1.Secret | None:
        return self._secrets.get(name)


def with_volume(uid: str, **source: Any) -> core_v1.Pod:
    found = pod(volumes=[{"name": "disk", **source}])
    found.metadata.uid = uid
    return found


def iscsi(**more: Any) -> dict[str, Any]:
    return {"iscsi": {"targetPortal": "192.0.2.1", "iqn": IQN, "lun": 0, "fsType": "ext4", **more}}


async def set_up(root: Path, found: core_v1.Pod, objects: Objects | None = None) -> Any:
    volumes = Volumes(root, objects or Objects())
    volumes.pod_dir(found.metadata.uid or "").mkdir(parents=True, exist_ok=True)
    return (await volumes.set_up(found, lambda: None))["disk"]  # type: ignore[arg-type, return-value]


async def test_an_iscsi_disk_is_formatted_once_mounted_kept_over_a_restart_and_given_up(
    tools: Tools, tmp_path: Path
) -> None:
    root = tmp_path / "kubelet"
    first = await set_up(root, with_volume("u1", **iscsi()))
    node = f"iscsiadm -m node -p {PORTAL} -T {IQN} -I default"
    assert tools.calls() == [
        f"iscsiadm -m discoverydb -t sendtargets -p {PORTAL} -I default --discover",
        f"{node} --op update -n node.session.scan -v manual",
        f"{node} --login",
        f"{node} --rescan",
    ]
    assert mounting.is_mount_point(first.path)
    (Path(first.path) / "file").write_text("kept")
    again = await set_up(root, with_volume("u1", **iscsi()))  # a kubelet that was started again
    assert again == first
    assert len(tools.calls()) == 4
    Volumes(root, Objects()).tear_down("u1")
    assert tools.calls()[4:] == [f"{node} --logout", f"{node} -o delete"]
    assert not (root / "pods" / "u1").exists()
    assert not tools.attached()
    second = await set_up(root, with_volume("u2", **iscsi(readOnly=True)))
    assert (Path(second.path) / "file").read_text() == "kept"
    with pytest.raises(OSError, match="Read-only"):
        (Path(second.path) / "file").write_text("changed")
    Volumes(root, Objects()).tear_down("u2")


async def test_a_disk_of_two_pods_is_given_up_with_the_last(tools: Tools, tmp_path: Path) -> None:
    root = tmp_path / "kubelet"
    volumes = Volumes(root, Objects())
    first = await set_up(root, with_volume("u1", **iscsi()))
    (Path(first.path) / "file").write_text("x")
    tools.write(fails="--login")  # a session that is there can't be made twice; the device is found all the same
    with pytest.raises(VolumeError, match="no route to portal"):
        await set_up(root, with_volume("u2", **iscsi()))
    volumes.tear_down("u1")
    assert not any("--logout" in call for call in tools.calls())
    volumes.tear_down("u2")
    assert sum("--logout" in call for call in tools.calls()) == 1
    assert not tools.attached()


async def test_what_holds_another_file_system_is_never_overwritten(tools: Tools, tmp_path: Path) -> None:
    tools.format()
    before = tools.image.read_bytes()
    with pytest.raises(VolumeError, match="holds ext4, not xfs"):
        await set_up(tmp_path / "kubelet", with_volume("u1", **iscsi(fsType="xfs")))
    assert san.held("PTTYPE=gpt\n") == "a gpt partition table"
    Volumes(tmp_path / "kubelet", Objects()).tear_down("u1")
    assert tools.image.read_bytes() == before
    assert not tools.attached()


async def test_a_local_volume_on_a_device_is_a_file_system_or_the_device_itself(tools: Tools, tmp_path: Path) -> None:
    device = tools.loop_device()
    directory = tmp_path / "pods" / "u1" / "volumes"
    context = VolumeContext(with_volume("u1"), directory, Objects(), lambda: None)  # type: ignore[arg-type, return-value]
    spec = core_v1.PersistentVolumeSpec(local=core_v1.LocalVolumeSource(path=device))
    raw = await persistent._source(context, "disk", spec, read_only=False, block=True, options=[])
    assert (raw.path, raw.is_device) == (device, True)
    found = await persistent._source(context, "disk", spec, read_only=False, block=False, options=["noatime"])
    assert not found.is_device
    assert mounting.is_mount_point(found.path)
    assert found == await persistent._source(context, "disk", spec, read_only=False, block=False, options=["noatime"])


async def test_one_portal_of_two_is_enough_and_none_is_told(tools: Tools, tmp_path: Path) -> None:
    tools.write(fails="192.0.2.2")
    root = tmp_path / "kubelet"
    found = await set_up(root, with_volume("u1", **iscsi(portals=["192.0.2.2:3260"])))
    assert mounting.is_mount_point(found.path)
    tools.write(fails="nothing-at-all")
    Volumes(root, Objects()).tear_down("u1")
    tools.write(fails="--discover")
    with pytest.raises(VolumeError, match=r'volume "disk" : iscsiadm .* failed .8.: iscsiadm: no route to portal'):
        await set_up(root, with_volume("u2", **iscsi()))
    Volumes(root, Objects()).tear_down("u2")
    assert not (root / "pods" / "u2").exists()


async def test_a_login_with_a_secret_shows_no_password(tools: Tools, tmp_path: Path) -> None:
    data = {"node.session.auth.username": "dXNlcg==", "node.session.auth.password": "Y2FuYXJ5"}
    objects = Objects(chap=core_v1.Secret(data=data))
    wanted = iscsi(chapAuthSession=True, secretRef={"name": "chap"})
    tools.write(fails="node.session.auth.password")
    with pytest.raises(VolumeError) as caught:
        await set_up(tmp_path / "kubelet", with_volume("u1", **wanted), objects)
    assert "node.session.auth.password -v ***" in str(caught.value)
    assert "canary" not in str(caught.value)
    node = f"iscsiadm -m node -p {PORTAL} -T {IQN} -I default -o update -n node.session.auth"
    assert f"{node}.authmethod -v CHAP" in tools.calls()
    assert f"{node}.password -v canary" in tools.calls()
    assert "canary" not in (tmp_path / "kubelet/pods/u1/detach.json").read_text()
    with pytest.raises(VolumeError, match='secret "chap" not found'):
        await set_up(tmp_path / "kubelet", with_volume("u2", **wanted))


async def test_an_nfs_export_is_mounted_with_its_options_and_unmounted(tools: Tools, tmp_path: Path) -> None:
    root = tmp_path / "kubelet"
    found = await set_up(root, with_volume("u1", nfs={"server": "192.0.2.9", "path": "/export", "readOnly": True}))
    assert found.read_only
    assert tools.calls() == [f"mount -t nfs -o ro 192.0.2.9:/export {found.path}"]
    await set_up(root, with_volume("u1", nfs={"server": "192.0.2.9", "path": "/export", "readOnly": True}))
    assert len(tools.calls()) == 1
    Volumes(root, Objects()).tear_down("u1")
    assert not mounting.mounts_below(str(root))
    six = san.nfs_mount("2001:db8::1", "/e", "/t", read_only=False, options=["nfsvers=4.1", "hard"])
    assert six == ["mount", "-t", "nfs", "-o", "nfsvers=4.1,hard", "[2001:db8::1]:/e", "/t"]


def test_fibre_channel_finds_by_name_and_gives_every_disk_below_up(tmp_path: Path) -> None:
    attach = san.fc_attach(core_v1.FCVolumeSource(targetWWNs=["500A0982991B8DC5"], lun=2))
    assert attach.devices == ["/dev/disk/by-path/*-fc-0x500a0982991b8dc5-lun-2"]
    by_id = san.fc_attach(core_v1.FCVolumeSource(wwids=["3600508b400105e21"]))
    assert by_id.devices[0] == "/dev/disk/by-id/dm-uuid-mpath-3600508b400105e21"
    with pytest.raises(VolumeError, match="neither targetWWNs"):
        san.fc_attach(core_v1.FCVolumeSource(lun=1))
    assert san.fc_detach("/dev/sdq") == [["sh", "-c", "echo 1 > /sys/block/sdq/device/delete"]]


def test_a_tool_that_fails_at_the_end_is_tried_again(tools: Tools, tmp_path: Path) -> None:
    pod_dir = tmp_path / "pods" / "u1"
    pod_dir.mkdir(parents=True)
    persistent._remember(pod_dir, "disk", [["iscsiadm", "-m", "node", "--logout-fails"]])
    tools.write(fails="--logout-fails")
    with pytest.raises(OSError, match="no route"):
        persistent.detach_all(pod_dir)
    tools.write(fails="nothing-at-all")
    persistent.detach_all(pod_dir)
    assert not list(pod_dir.iterdir())
