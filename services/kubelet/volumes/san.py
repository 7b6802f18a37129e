"""Disks and file systems over the network, as commands for the node's own tools.

Pure but for waiting for a device and mounting it.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lightkube.models import core_v1

from services.kubelet.volumes.context import VolumeError

_DEVICE_SECONDS = 30
Run = Callable[[list[str]], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Attachment:
    """How to attach a disk, where it will show up (glob patterns, best first), and how to detach it."""

    commands: list[list[str]]
    devices: list[str]
    detach: list[list[str]] = field(default_factory=list)


def nfs_mount(server: str, path: str, target: str, *, read_only: bool, options: list[str]) -> list[str]:
    """The command that mounts an NFS export."""
    host = f"[{server}]" if ":" in server else server
    wanted = [*(["ro"] if read_only else []), *options]
    flags = ["-o", ",".join(wanted)] if wanted else []
    return ["mount", "-t", "nfs", *flags, f"{host}:{path}", target]


def iscsi_attach(source: core_v1.ISCSIVolumeSource) -> Attachment:
    """Log in to every portal of the target. Multipath's device is preferred where it exists."""
    interface = source.iscsiInterface or "default"
    portals = [_portal(p) for p in [source.targetPortal, *(source.portals or [])]]
    commands: list[list[str]] = []
    detach: list[list[str]] = []
    devices: list[str] = []
    for portal in portals:
        node = ["iscsiadm", "-m", "node", "-p", portal, "-T", source.iqn, "-I", interface]
        commands.append(
            ["iscsiadm", "-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", interface, "--discover"]
        )
        commands.append([*node, "--op", "update", "-n", "node.session.scan", "-v", "manual"])
        commands.append([*node, "--login"])
        commands.append([*node, "--rescan"])
        detach.append([*node, "--logout"])
        detach.append([*node, "-o", "delete"])
        devices.append(f"/dev/disk/by-path/*ip-{portal}-iscsi-{source.iqn}-lun-{source.lun}")
    return Attachment(commands, devices, detach)


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
    return Attachment([["sh", "-c", "for h in /sys/class/scsi_host/host*/scan; do echo '- - -' > $h; done"]], devices)


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


async def format_and_mount(
    run: Run, device: str, target: str, fs_type: str, *, read_only: bool, options: list[str]
) -> None:
    """Mount a disk; one that holds nothing gets a file system first. What holds anything else is never overwritten."""
    wanted = [*(["ro"] if read_only else []), *options]
    present = (await run(["lsblk", "-n", "-o", "FSTYPE", device])).strip()
    if not present and not read_only:
        force = ["-F"] if fs_type.startswith("ext") else []
        await run([f"mkfs.{fs_type}", *force, device])
    elif present and present != fs_type:
        raise VolumeError(f"{device} holds {present}, not {fs_type}")
    await run(["mount", "-t", fs_type, *(["-o", ",".join(wanted)] if wanted else []), device, target])
