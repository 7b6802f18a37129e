"""What pods take of this node's disks: volumes, logs, writable layers. Measured when asked, once a minute at most.

Walking a volume costs as much as it has files, so figures are kept as long as upstream keeps them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightkube.models import core_v1

from machinery.api.quantity import parse_quantity
from services.kubelet import node_info, pod_spec
from services.kubelet.volumes.context import VolumePath

_KEEP_SECONDS = 60.0
_WALKED = ("emptyDir", "configMap", "secret", "downwardAPI", "projected")
_CLAIMED = ("persistentVolumeClaim", "ephemeral")


@dataclass(frozen=True, slots=True)
class FsUsage:
    """A part of a file system: what it takes, and what the file system has."""

    used_bytes: int
    inodes_used: int
    capacity_bytes: int = 0
    available_bytes: int = 0
    inodes: int = 0
    inodes_free: int = 0


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """One volume of a pod."""

    name: str
    usage: FsUsage
    claim: str = ""
    # Whether it counts as the pod's ephemeral storage.
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class PodDiskUsage:
    """Volumes, and logs by container, of one pod."""

    volumes: tuple[VolumeUsage, ...] = ()
    logs: Mapping[str, tuple[int, int]] = ()  # type: ignore[assignment]

    @property
    def ephemeral(self) -> tuple[int, int]:
        """(bytes, inodes) without the containers' writable layers."""
        parts = [(v.usage.used_bytes, v.usage.inodes_used) for v in self.volumes if v.ephemeral]
        parts += dict(self.logs).values()
        return sum(part[0] for part in parts), sum(part[1] for part in parts)


def tree(root: Path) -> tuple[int, int]:
    """(bytes of disk blocks, inodes) of a tree. Links are not followed; what vanishes meanwhile is not counted."""
    total, inodes = 0, 0
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
            inodes += 1
    return total, inodes


def of_file_system(path: str) -> FsUsage:
    """All of the file system that holds the path."""
    total, available, inodes, free = node_info.disk(path)
    return FsUsage(total - available, inodes - free, total, available, inodes, free)


def of_tree(path: str) -> FsUsage:
    """A tree within its file system."""
    used, inodes_used = tree(Path(path))
    total, available, inodes, free = node_info.disk(path)
    return FsUsage(used, inodes_used, total, available, inodes, free)


def measure(pod: core_v1.Pod, paths: Mapping[str, VolumePath], logs: Path) -> PodDiskUsage:
    """One pod's volumes and logs. Blocking; what is gone meanwhile is left out."""
    volumes = []
    for volume in pod.spec.volumes or ():
        where = paths.get(volume.name)
        if where is None or not where.path or where.is_device:
            continue
        try:
            found = _volume(pod, volume, where.path)
        except OSError:
            continue
        if found is not None:
            volumes.append(found)
    return PodDiskUsage(tuple(volumes), {c.name: tree(logs / c.name) for c in pod_spec.all_containers(pod)})


def _volume(pod: core_v1.Pod, volume: core_v1.Volume, path: str) -> VolumeUsage | None:
    if any(getattr(volume, name) is not None for name in _WALKED):
        on_disk = volume.emptyDir is not None and volume.emptyDir.medium in (None, "")
        return VolumeUsage(volume.name, of_tree(path), ephemeral=on_disk or volume.configMap is not None)
    if any(getattr(volume, name) is not None for name in _CLAIMED):
        own = volume.persistentVolumeClaim
        return VolumeUsage(
            volume.name, of_file_system(path), claim=own.claimName if own else f"{pod.metadata.name}-{volume.name}"
        )
    return None


class DiskUsage:
    """Measures pods, in threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, PodDiskUsage]] = {}

    async def of(self, pod: core_v1.Pod, paths: Mapping[str, VolumePath], logs: Path) -> PodDiskUsage:
        """The pod's use, at most a minute old."""
        uid = pod.metadata.uid or ""
        known = self._known.get(uid)
        if known is not None and 0 <= self._clock() - known[0] < _KEEP_SECONDS and paths:
            return known[1]
        found = await asyncio.get_running_loop().run_in_executor(None, measure, pod, paths, logs)
        self._known[uid] = (self._clock(), found)
        return found

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all other pods."""
        alive = set(uids)
        for uid in [uid for uid in self._known if uid not in alive]:
            del self._known[uid]


def over_limit(pod: core_v1.Pod, usage: PodDiskUsage, layers: Mapping[str, int]) -> str:
    """The words of the eviction of a pod that outgrew a limit of its ephemeral storage; empty if it did not.

    `layers` are the bytes of writable layers by container. Upstream's order: a volume's own limit comes before (see
    `eviction.over_size_limit`), then the pod's, then the containers'.
    """
    limits = ephemeral_limits(pod)
    total_limit = sum(limits.values())
    total = usage.ephemeral[0] + sum(layers.values())
    if total_limit and total > total_limit:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {_binary(total_limit)}. "
    logs = dict(usage.logs)
    for name, limit in limits.items():
        if layers.get(name, 0) + logs.get(name, (0, 0))[0] > limit:
            return f'Container {name} exceeded its local ephemeral storage limit "{_binary(limit)}". '
    return ""


def ephemeral_limits(pod: core_v1.Pod) -> dict[str, int]:
    """The limits of ephemeral storage, in bytes, of the containers that have one."""
    out = {}
    for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]:
        limits = (container.resources.limits if container.resources else None) or {}
        if "ephemeral-storage" in limits:
            out[container.name] = parse_quantity(str(limits["ephemeral-storage"])).value
    return {name: limit for name, limit in out.items() if limit}


def _binary(amount: int) -> str:
    """As a quantity with the largest binary unit that divides it."""
    for unit, name in ((1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if amount >= unit and amount % unit == 0:
            return f"{amount // unit}{name}"
    return str(amount)
