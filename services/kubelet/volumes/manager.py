"""All volumes of a pod: set up before its containers, refreshed while they run, torn down after them.

What is on disk is the record: tear-down looks at the pod's directory and the mount table, so it also works for a pod
that an earlier kubelet process set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from lightkube.models import core_v1

from services.kubelet import pod_spec
from services.kubelet.container_config import MountSpec
from services.kubelet.environment import NodeFacts, expand
from services.kubelet.objects import Objects
from services.kubelet.volumes import empty_dir, files, host_path, mounting, persistent, sub_path
from services.kubelet.volumes.context import VolumeContext, VolumeError, VolumePath

SetUp = Callable[[VolumeContext, core_v1.Volume], Awaitable[VolumePath]]


async def _set_up_image(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    return VolumePath("", read_only=True, image=volume.image.reference or "")


_TYPES: dict[str, SetUp] = {
    "emptyDir": empty_dir.set_up,
    "hostPath": host_path.set_up,
    "configMap": files.set_up_config_map,
    "secret": files.set_up_secret,
    "downwardAPI": files.set_up_downward,
    "projected": files.set_up_projected,
    "persistentVolumeClaim": persistent.set_up_claim,
    "ephemeral": persistent.set_up_ephemeral,
    "nfs": persistent.set_up_inline,
    "iscsi": persistent.set_up_inline,
    "fc": persistent.set_up_inline,
    "image": _set_up_image,
}
_FOLLOWS_OBJECTS = ("configMap", "secret", "downwardAPI", "projected")


class Volumes:
    """The volumes of this node's pods, below `<root>/pods/<uid>`."""

    def __init__(self, root: Path, objects: Objects) -> None:
        self._pods = root / "pods"
        self._objects = objects
        # Whether the runtime can make all that is mounted below a mount read-only.
        self.recursive_read_only: Callable[[], bool] = lambda: False

    def pod_dir(self, uid: str) -> Path:
        return self._pods / uid

    def _context(self, pod: core_v1.Pod, node: Callable[[], NodeFacts]) -> VolumeContext:
        return VolumeContext(pod, self.pod_dir(pod.metadata.uid or "") / "volumes", self._objects, node)

    async def set_up(self, pod: core_v1.Pod, node: Callable[[], NodeFacts]) -> dict[str, VolumePath]:
        """Every volume of the pod, ready to be mounted. Idempotent. Raises VolumeError naming the volume."""
        context = self._context(pod, node)
        volumes = pod.spec.volumes or []
        paths = await asyncio.gather(*(self._one(context, volume) for volume in volumes))
        return {volume.name: path for volume, path in zip(volumes, paths, strict=True)}

    async def refresh(self, pod: core_v1.Pod, node: Callable[[], NodeFacts]) -> None:
        """Bring the volumes that show API objects up to date."""
        context = self._context(pod, node)
        for volume in pod.spec.volumes or []:
            if any(getattr(volume, name) is not None for name in _FOLLOWS_OBJECTS):
                await self._one(context, volume)

    async def _one(self, context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
        for name, set_up in _TYPES.items():
            if getattr(volume, name) is not None:
                try:
                    return await set_up(context, volume)
                except VolumeError as error:
                    raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
                except OSError as error:
                    raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
        return VolumePath(await self._empty(context, volume))

    async def _empty(self, context: VolumeContext, volume: core_v1.Volume) -> str:
        """A volume without any source is an emptyDir; one with a source that this kubelet does not know is refused."""
        named = [f for f in volume.__struct_fields__ if f != "name" and getattr(volume, f) is not None]
        if named:
            raise VolumeError(f'volume "{volume.name}": type {named[0]} is not supported on this node')
        volume = core_v1.Volume(name=volume.name, emptyDir=core_v1.EmptyDirVolumeSource())
        return (await empty_dir.set_up(context, volume)).path

    def mounts(
        self, pod: core_v1.Pod, container: pod_spec.AnyContainer, paths: dict[str, VolumePath], env: dict[str, str]
    ) -> list[MountSpec]:
        """The mounts of one container, subPaths bound. Raises VolumeError."""
        mounts = []
        for index, mount in enumerate(container.volumeMounts or ()):
            volume = paths.get(mount.name)
            if volume is None:
                raise VolumeError(f'volume "{mount.name}" of container {container.name} is not in the pod')
            if volume.is_device:
                raise VolumeError(f'volume "{mount.name}" is a block volume and can not be mounted as a file system')
            source = volume.path
            if volume.image:
                sub = mount.subPath or ""
                mounts.append(MountSpec(mount.mountPath, "", True, image=volume.image, image_sub_path=sub))
                continue
            inner = mount.subPath or (expand(mount.subPathExpr, env.get) if mount.subPathExpr else "")
            if inner and source:
                try:
                    target = self._sub_path_dir(pod, mount.name, container.name, index)
                    source = sub_path.prepare(source, inner, target, read_only=volume.read_only)
                except OSError as error:
                    where = f'volumeMount "{mount.name}" of container "{container.name}"'
                    raise VolumeError(f"failed to prepare subPath for {where}: {error}") from error
            mounts.append(
                MountSpec(
                    mount.mountPath,
                    source,
                    bool(mount.readOnly) or volume.read_only,
                    mount.mountPropagation or "None",
                    recursive_read_only=self._recursive_read_only(mount),
                )
            )
        return mounts

    def _recursive_read_only(self, mount: core_v1.VolumeMount) -> bool:
        try:
            return pod_spec.recursive_read_only(mount, supported=self.recursive_read_only())
        except ValueError as error:
            raise VolumeError(f"failed to resolve recursive read-only mode: {error}") from error

    def _sub_path_dir(self, pod: core_v1.Pod, volume: str, container: str, index: int) -> Path:
        return self.pod_dir(pod.metadata.uid or "") / "volume-subpaths" / volume / container / str(index)

    def tear_down(self, uid: str) -> None:
        """Unmount and remove all that the pod had on this node.

        Raises OSError with what is in the way; safe to repeat.
        """
        root = self.pod_dir(uid)
        mounting.unmount_below(str(root))
        persistent.detach_all(root)
        mounting.remove_tree(root)

    def known_pods(self) -> list[str]:
        """Uids of the pods that have a directory here."""
        return [entry.name for entry in self._pods.iterdir() if entry.is_dir()] if self._pods.is_dir() else []
