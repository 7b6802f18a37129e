"""Image volumes: an image's file system, read-only, as the source of a container's mount.

The image is a view snapshot mounted below the shim's state directory. A sub path is resolved with the image's root
as root directory, so no symbolic link of the image reaches the node's files, and the directory that was found is
bind-mounted by its descriptor, so none can be swapped in afterwards.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri import id_maps, idmapped, kernel
from cri.errors import InvalidArgument, NotFound
from cri.idmapped import Layer
from cri.runtime import Runtime
from cri.state import Sandbox


def _directory(runtime: Runtime, container_id: str) -> Path:
    return runtime.state / "image-volumes" / container_id


def _key(container_id: str, index: int) -> str:
    return f"volume-{container_id}-{index}"


async def mount_all(
    runtime: Runtime, container_id: str, mounts: Sequence[cri.Mount], sandbox: Sandbox
) -> dict[int, str]:
    """Mounts what image volumes there are; returns their directories by the mount's index.

    Where the mount says so, files show the owners that they have in the image to the users of the pod.
    """
    result: dict[int, str] = {}
    for index, mount in enumerate(mounts):
        if not mount.HasField("image") or not mount.image.image:
            continue
        if mount.host_path:
            raise InvalidArgument(f"mounts: {mount.container_path}: image and host_path exclude each other")
        info = await runtime.images.info(mount.image.image)
        view = api.snapshots.ViewSnapshotRequest(
            snapshotter=runtime.config.snapshotter,
            key=_key(container_id, index),
            parent=info.chain_id,
            labels={"containerd.io/gc.root": "cutaway", "cutaway.dev/container": container_id},
        )
        layers = (await runtime.containerd.snapshots.View(view)).mounts
        target = _directory(runtime, container_id) / str(index)
        namespace = str(sandbox.state / "user") if id_maps.of_mount(mount, sandbox.ids) else ""
        result[index] = await asyncio.to_thread(_mount, layers, target, mount.image_sub_path, namespace)
    return result


def _mount(layers: Any, target: Path, sub_path: str, namespace: str) -> str:
    target.mkdir(mode=0o700, parents=True)
    for layer in layers:
        if namespace:
            idmapped.mount_image(Layer(layer.type, layer.source, tuple(layer.options)), target, namespace)
        elif layer.type == "bind":
            kernel.mount(layer.source, str(target), flags=kernel.MS_BIND)
            kernel.mount(layer.source, str(target), flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)
        else:
            kernel.mount(layer.source, str(target), layer.type, kernel.MS_RDONLY, ",".join(layer.options))
    if not sub_path:
        return str(target)
    inner = target.with_name(f"{target.name}-sub")
    with kernel.directory_fd(target) as root:
        try:
            fd = kernel.open_in_root(root, sub_path, os.O_PATH)
        except OSError as error:
            raise NotFound(f"image_sub_path {sub_path!r}: {error.strerror}") from error
        try:
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                inner.mkdir(mode=0o700)
            else:
                inner.touch(mode=0o600)
            kernel.mount(f"/proc/self/fd/{fd}", str(inner), flags=kernel.MS_BIND)
        finally:
            os.close(fd)
    return str(inner)


async def release(runtime: Runtime, container_id: str) -> None:
    """Unmounts a container's image volumes and drops their snapshots. Idempotent."""
    directory = _directory(runtime, container_id)
    if not directory.exists():
        return
    indices = await asyncio.to_thread(_unmount, directory)
    for index in indices:
        request = api.snapshots.RemoveSnapshotRequest(
            snapshotter=runtime.config.snapshotter, key=_key(container_id, index)
        )
        with contextlib.suppress(NotFound):
            await runtime.containerd.snapshots.Remove(request)


def _unmount(directory: Path) -> list[int]:
    indices: list[int] = []
    for path in sorted(directory.iterdir(), key=lambda item: not item.name.endswith("-sub")):
        if path.name.endswith(idmapped.LAYERS_SUFFIX):
            idmapped.drop_layers(path)
            continue
        kernel.unmount(str(path))
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        if path.name.isdigit():
            indices.append(int(path.name))
    directory.rmdir()
    return indices
