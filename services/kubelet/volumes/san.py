"""Disks and file systems over the network, as commands for the node's own tools.

Pure but for waiting for a device and mounting it.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from lightkube.models import core_v1

from services.kubelet.volumes.context import VolumeError

_DEVICE_SECONDS = 30
Run = Callable[..., Awaitable[str]]  # (command, *, accept: exit codes that are no failure) -> its output


@dataclass(frozen=True, slots=True)
class Attachment:
    """How to attach a disk by each of its paths (one has to work), where it will show up (glob patterns, best first),
    and how to detach it."""

    paths: list[list[list[str]]]
    devices: list[str]
    detach: list[list[str]] = field(default_factory=list)


def nfs_mount(server: str, path: str, target: str, *, read_only: bool, options: list[str]) -> list[str]:
    """The command that mounts an NFS export."""
    host = f"[{server}]" if ":" in server else server
    wanted = [*(["ro"] if read_only else []), *options]
    flags = ["-o", ",".join(wanted)] if wanted else []
    return ["mount", "-t", "nfs", *flags, f"{host}:{path}", target]


def iscsi_attach(source: core_v1.ISCSIVolumeSource, chap: Mapping[str, str] | None = None) -> Attachment:
    """Log in to every portal of the target. Multipath's device is preferred where it exists.

    `chap` has the parameters of the volume's secret by open-iscsi's own names (`node.session.auth.username` …).
    """
    portals = [_portal(p) for p in [source.targetPortal, *(source.portals or [])]]
    paths: list[list[list[str]]] = []
    detach: list[list[str]] = []
    devices: list[str] = []
    for portal in portals:
        interface = f"{portal}:{source.iqn}" if source.initiatorName else source.iscsiInterface or "default"
        node = ["iscsiadm", "-m", "node", "-p", portal, "-T", source.iqn, "-I", interface]
        discovery = ["iscsiadm", "-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", interface]
        commands = _interface(interface, source.initiatorName) if source.initiatorName else []
        if source.chapAuthDiscovery:
            commands.append([*discovery, "-o", "new"])
            commands += _authentication(discovery, "discovery.sendtargets.auth", chap or {})
        commands.append([*discovery, "--discover"])
        if source.chapAuthSession:
            commands += _authentication(node, "node.session.auth", chap or {})
        commands.append([*node, "--op", "update", "-n", "node.session.scan", "-v", "manual"])
        commands.append([*node, "--login"])
        commands.append([*node, "--rescan"])
        paths.append(commands)
        detach.append([*node, "--logout"])
        detach.append([*node, "-o", "delete"])
        if source.initiatorName:
            detach.append(["iscsiadm", "-m", "iface", "-I", interface, "-o", "delete"])
        devices.append(f"/dev/disk/by-path/*ip-{portal}-iscsi-{source.iqn}-lun-{source.lun}")
    return Attachment(paths, devices, detach)


def _interface(name: str, initiator: str) -> list[list[str]]:
    """An interface of the volume's own, which speaks as another initiator."""
    iface = ["iscsiadm", "-m", "iface", "-I", name]
    return [[*iface, "-o", "new"], [*iface, "-o", "update", "-n", "iface.initiatorname", "-v", initiator]]


def _authentication(command: list[str], prefix: str, chap: Mapping[str, str]) -> list[list[str]]:
    """Set the parameters of the secret that are about this. Raises VolumeError where there are none."""
    found = {name: value for name, value in sorted(chap.items()) if name.startswith(f"{prefix}.")}
    if not found:
        raise VolumeError(f"iscsi: the secret has no {prefix}.username and {prefix}.password")
    settings = {f"{prefix}.authmethod": "CHAP", **found}
    return [[*command, "-o", "update", "-n", name, "-v", value] for name, value in settings.items()]


def shown(command: list[str]) -> str:
    """The command for a message, without passwords."""
    hidden = {i + 2 for i, word in enumerate(command) if ".password" in word}
    return " ".join("***" if i in hidden else word for i, word in enumerate(command))


def _portal(portal: str) -> str:
    return portal if portal.rpartition(":")[2].isdigit() and ":" in portal else f"{portal}:3260"


def fc_attach(source: core_v1.FCVolumeSource) -> Attachment:
    """The disk is already on the fabric: rescan the adapters and find it by world-wide name or identifier."""
    devices = [
        f"/dev/disk/by-path/*-fc-0x{wwn.lower().removeprefix('0x')}-lun-{source.lun}" for wwn in source.targetWWNs or []
    ]
    devices += [
        f"/dev/disk/by-id/{'dm-uuid-mpath-' if multi else 'scsi-'}{wwid}"
        for wwid in source.wwids or []
        for multi in (True, False)
    ]
    if not devices:
        raise VolumeError("fc: neither targetWWNs with lun nor wwids are given")
    rescan = "for h in /sys/class/scsi_host/host*/scan; do echo '- - -' > $h; done"
    return Attachment([[["sh", "-c", rescan]]], devices)


def fc_detach(device: str) -> list[list[str]]:
    """Give up a multipath device, then every disk below it, so that the kernel forgets what may vanish."""
    name = os.path.basename(os.path.realpath(device))
    disks = [os.path.basename(found) for found in sorted(glob.glob(f"/sys/block/{name}/slaves/*"))] or [name]
    flush = [["multipath", "-f", name]] if name.startswith("dm-") else []
    return [*flush, *(["sh", "-c", f"echo 1 > /sys/block/{disk}/device/delete"] for disk in disks)]


async def wait_for_device(patterns: list[str], seconds: float = _DEVICE_SECONDS) -> str:
    """The first device that shows up. Raises VolumeError with the patterns."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        for pattern in patterns:
            for found in glob.glob(pattern):
                return multipath_of(found)
        if asyncio.get_running_loop().time() > deadline:
            raise VolumeError(f"no device appeared at {' or '.join(patterns)}")
        await asyncio.sleep(0.2)


def multipath_of(device: str) -> str:
    """The device-mapper device above a path's disk, if multipath made one."""
    device = os.path.realpath(device)
    holders = glob.glob(f"/sys/block/{os.path.basename(device)}/holders/dm-*")
    return f"/dev/{os.path.basename(holders[0])}" if holders else device


def held(export: str) -> str:
    """What `blkid -o export` found: a file system's type, else a partition table's; empty for nothing."""
    found = dict(line.split("=", 1) for line in export.splitlines() if "=" in line)
    return found.get("TYPE") or (f"a {found['PTTYPE']} partition table" if found.get("PTTYPE") else "")


async def format_and_mount(
    run: Run, device: str, target: str, fs_type: str, *, read_only: bool, options: list[str]
) -> None:
    """Mount a disk; one that holds nothing gets a file system first. What holds anything else is never overwritten."""
    wanted = [*(["ro"] if read_only else []), *options]
    # Straight from the disk (-p): what udev knows may be nothing. 2 is blkid's word for a disk that holds nothing.
    probe = ["blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device]
    present = held(await run(probe, accept=(0, 2)))
    if not present and not read_only:
        force = ["-F"] if fs_type.startswith("ext") else []
        await run([f"mkfs.{fs_type}", *force, device])
    elif present and present != fs_type:
        raise VolumeError(f"{device} holds {present}, not {fs_type}")
    await run(["mount", "-t", fs_type, *(["-o", ",".join(wanted)] if wanted else []), device, target])
