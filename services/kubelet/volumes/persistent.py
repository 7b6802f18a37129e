"""Persistent volumes through claims, and the networked types that a pod or a PersistentVolume can name: nfs, iscsi, fc.

The networked ones use the node's own tools (`mount.nfs`, `iscsiadm`, `multipath`). What has to be undone after
unmounting is written to `detach.json` beside the mounts before it is done, so that a kubelet that was killed in
between still cleans up.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

from lightkube.models import core_v1

from machinery.api import kinds
from services.kubelet.volumes import host_path, mounting, san
from services.kubelet.volumes.context import VolumeContext, VolumeError, VolumePath
from services.kubelet.volumes.ownership import give_to_group
from services.kubelet.volumes.payload import secret_data

_DETACH = "detach.json"
# Held while it is decided whether anybody else needs a disk and it is detached, and while a need is written down:
# whoever comes later attaches again.
_detaching = threading.Lock()


async def set_up_claim(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    source = volume.persistentVolumeClaim
    return await _claim(context, volume.name, source.claimName, read_only=bool(source.readOnly))


async def set_up_ephemeral(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    """A generic ephemeral volume is a claim of the pod's own, made by the controller-manager."""
    return await _claim(context, volume.name, f"{context.pod.metadata.name}-{volume.name}", read_only=False)


async def set_up_inline(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    return await _source(context, volume.name, volume, read_only=False, block=False, options=[])


async def _claim(context: VolumeContext, name: str, claim_name: str, *, read_only: bool) -> VolumePath:
    claim = await context.objects.get(kinds.PERSISTENT_VOLUME_CLAIM, context.namespace, claim_name, context.uid)
    if claim is None:
        raise VolumeError(f'persistentvolumeclaim "{claim_name}" not found')
    if claim.metadata.deletionTimestamp is not None and not read_only and not _already_there(context, name):
        raise VolumeError(f'persistentvolumeclaim "{claim_name}" is being deleted')
    if not claim.status or claim.status.phase != "Bound" or not claim.spec.volumeName:
        raise VolumeError(f'persistentvolumeclaim "{claim_name}" is not bound')
    found = await context.objects.get(kinds.PERSISTENT_VOLUME, "", claim.spec.volumeName)
    if found is None:
        raise VolumeError(f'persistentvolume "{claim.spec.volumeName}" not found')
    reference = found.spec.claimRef
    if reference is None or reference.uid != claim.metadata.uid:
        raise VolumeError(f'persistentvolume "{claim.spec.volumeName}" is not bound to claim "{claim_name}"')
    read_only = read_only or list(claim.spec.accessModes or []) == ["ReadOnlyMany"]
    block = (claim.spec.volumeMode or "Filesystem") == "Block"
    options = list(found.spec.mountOptions or [])
    return await _source(context, name, found.spec, read_only=read_only, block=block, options=options)


def _already_there(context: VolumeContext, name: str) -> bool:
    return any(context.directory.glob(f"*/{name}"))


async def _source(
    context: VolumeContext, name: str, source: Any, *, read_only: bool, block: bool, options: list[str]
) -> VolumePath:
    """Any source that a volume or a PersistentVolume can have."""
    if getattr(source, "local", None) is not None:
        return await _local(context, name, source.local, read_only=read_only, block=block, options=options)
    if getattr(source, "hostPath", None) is not None:
        path = host_path.check(source.hostPath)
        return VolumePath(path, read_only, is_device=block)
    if getattr(source, "nfs", None) is not None:
        nfs = source.nfs
        target = context.volume_dir("nfs", name)
        ro = read_only or bool(nfs.readOnly)
        if not mounting.is_mount_point(str(target)):
            await run(san.nfs_mount(nfs.server, nfs.path, str(target), read_only=ro, options=options))
        return VolumePath(str(target), ro)
    for kind in ("iscsi", "fc"):
        found = getattr(source, kind, None)
        if found is not None:
            return await _san(context, name, kind, found, read_only=read_only, block=block, options=options)
    named = [f for f in getattr(source, "__struct_fields__", ()) if getattr(source, f) is not None]
    raise VolumeError(f"volume type of {name} is not supported on this node (it has {', '.join(named)})")


async def _local(
    context: VolumeContext, name: str, source: core_v1.LocalVolumeSource, *, read_only: bool, block: bool,
    options: list[str],
) -> VolumePath:  # fmt: skip
    """A directory, or a device: as it is, or, where a file system is asked for, with one on it."""
    path = source.path
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise VolumeError(f"local volume: {path} does not exist") from error
    if block:
        return VolumePath(path, read_only, is_device=True)
    if stat.S_ISBLK(mode):
        target = context.volume_dir("local-volume", name)
        if not mounting.is_mount_point(str(target)):
            kind = source.fsType or "ext4"
            await san.format_and_mount(run, path, str(target), kind, read_only=read_only, options=options)
            if not read_only:
                give_to_group(target, context.fs_group)
        return VolumePath(str(target), read_only)
    if not stat.S_ISDIR(mode):
        raise VolumeError(f"local volume: {path} is neither a directory nor a block device")
    target = context.volume_dir("local-volume", name)
    if not mounting.is_mount_point(str(target)):
        mounting.bind(path, str(target), read_only=read_only)
    if not read_only:
        policy = context.pod.spec.securityContext.fsGroupChangePolicy if context.pod.spec.securityContext else None
        give_to_group(target, context.fs_group, only_if_root_differs=policy == "OnRootMismatch")
    return VolumePath(str(target), read_only)


async def _san(
    context: VolumeContext, name: str, kind: str, source: Any, *, read_only: bool, block: bool, options: list[str]
) -> VolumePath:
    """A disk over iSCSI or Fibre Channel: attach, find the device, format if empty, mount."""
    target = context.volume_dir(kind, name)
    read_only = read_only or bool(source.readOnly)
    if not block and mounting.is_mount_point(str(target)):
        return VolumePath(str(target), read_only)
    attach = san.fc_attach(source) if kind == "fc" else san.iscsi_attach(source, await _chap(context, source))
    pod_dir = context.directory.parent
    await asyncio.to_thread(_remember, pod_dir, name, attach.detach)
    await _attach(attach)
    device = await san.wait_for_device(attach.devices)
    if kind == "fc":
        await asyncio.to_thread(_remember, pod_dir, name, san.fc_detach(device))
    if block:
        return VolumePath(device, read_only, is_device=True)
    await san.format_and_mount(run, device, str(target), source.fsType or "ext4", read_only=read_only, options=options)
    if not read_only:
        give_to_group(target, context.fs_group)
    return VolumePath(str(target), read_only)


async def _chap(context: VolumeContext, source: core_v1.ISCSIVolumeSource) -> dict[str, str]:
    """The secret's parameters, if the volume asks for authentication."""
    if not (source.chapAuthDiscovery or source.chapAuthSession):
        return {}
    reference = source.secretRef
    if reference is None or not reference.name:
        raise VolumeError("iscsi: chapAuthSession and chapAuthDiscovery need a secretRef")
    namespace = getattr(reference, "namespace", None) or context.namespace
    secret = await context.objects.secret(namespace, reference.name, context.uid)
    if secret is None:
        raise VolumeError(f'iscsi: secret "{reference.name}" not found')
    return {key: value.decode("utf-8", "replace") for key, value in secret_data(secret).items()}


async def _attach(attach: san.Attachment) -> None:
    """Try every path; one is enough. Raises VolumeError with what each of them said."""
    failures = []
    for commands in attach.paths:
        try:
            for command in commands:
                await run(command)
        except VolumeError as error:
            failures.append(str(error))
    if len(failures) == len(attach.paths):
        raise VolumeError("; ".join(failures))


def _remember(pod_dir: Path, name: str, commands: list[list[str]]) -> None:
    """Write down how to undo what is about to be done. Waits while something is being detached."""
    record = pod_dir / _DETACH
    with _detaching:
        known = json.loads(record.read_text()) if record.exists() else {}
        known[name] = commands
        temporary = record.with_suffix(".new")
        temporary.write_text(json.dumps(known))
        temporary.replace(record)


def detach_all(pod_dir: Path) -> None:
    """Undo every attachment that was noted for the pod, but for those that another pod of this node has too.

    Raises OSError when a tool fails, so that it is tried again.
    """
    record = pod_dir / _DETACH
    if not record.exists():
        return
    with _detaching:
        shared = [c for other in pod_dir.parent.glob(f"*/{_DETACH}") if other != record for c in _recorded(other)]
        for command in _recorded(record):
            if command not in shared:
                _detach(command)
        record.unlink()


def _recorded(record: Path) -> list[list[str]]:
    try:
        return [command for commands in json.loads(record.read_text()).values() for command in commands]
    except FileNotFoundError:  # that pod has just gone
        return []


def _detach(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        return  # without the tool nothing was ever attached
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{san.shown(command)}: no end after 60 s") from error
    # 21: iscsiadm has no such session; it is gone already.
    if done.returncode not in (0, 21):
        raise OSError(f"{san.shown(command)}: {done.stderr.decode(errors='replace').strip()}")


async def run(command: list[str], *, accept: tuple[int, ...] = (0,)) -> str:
    """Run one of the node's tools to its end; its output. Raises VolumeError with its own words."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise VolumeError(f"{command[0]} is not installed on this node") from error
    out, err = await process.communicate()
    if process.returncode not in accept:
        raise VolumeError(f"{san.shown(command)} failed ({process.returncode}): {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace")
