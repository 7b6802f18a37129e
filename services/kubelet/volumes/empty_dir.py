"""emptyDir: a directory that lives as long as the pod, on disk or in memory."""

from __future__ import annotations

import os

from lightkube.models import core_v1

from machinery.api.quantity import parse_quantity
from services.kubelet import qos
from services.kubelet.volumes import mounting
from services.kubelet.volumes.context import VolumeContext, VolumeError, VolumePath
from services.kubelet.volumes.ownership import give_to_group


async def set_up(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    source = volume.emptyDir
    path = context.volume_dir("empty-dir", volume.name)
    mode = 0o777 if source.mode is None else source.mode
    medium = source.medium or ""
    if medium == "Memory":
        if not mounting.is_mount_point(str(path)):
            mounting.mount_tmpfs(str(path), size_bytes=_memory_size(context, source))
            path.chmod(mode)
    elif medium.startswith("HugePages"):
        raise VolumeError(f"emptyDir medium {medium} is not supported on this node")
    elif path.stat().st_mode & 0o7777 != mode:
        os.chmod(path, mode)
    give_to_group(path, context.fs_group)
    return VolumePath(str(path))


def _memory_size(context: VolumeContext, source: core_v1.EmptyDirVolumeSource) -> int | None:
    """The volume's own limit or the pod's memory limit, whichever is less: memory in the volume is the pod's memory."""
    own = parse_quantity(str(source.sizeLimit)).value if source.sizeLimit not in (None, "0", 0) else None
    of_pod = qos.pod_resources(context.pod).memory_limit_bytes
    given = [size for size in (own, of_pod) if size]
    return min(given) if given else None
