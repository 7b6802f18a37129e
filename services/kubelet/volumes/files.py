"""configMap, secret, downwardAPI and projected volumes.

Files made from API objects, kept equal to them while the pod lives.
"""

from __future__ import annotations

from pathlib import Path

from lightkube.models import core_v1

from machinery.api import errors
from services.kubelet.environment import MissingReference
from services.kubelet.volumes import atomic_writer, mounting, payload
from services.kubelet.volumes.atomic_writer import FileContent, UnsafePath
from services.kubelet.volumes.context import VolumeContext, VolumeError, VolumePath


async def set_up_config_map(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    source = volume.configMap
    files = await _config_map_files(context, source, source.defaultMode)
    return _put(context, "configmap", volume.name, files)


async def set_up_secret(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    source = volume.secret
    files = await _secret_files(context, source.secretName or "", source.items, source.defaultMode, source.optional)
    return _put(context, "secret", volume.name, files, in_memory=True)


async def set_up_downward(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    source = volume.downwardAPI
    files = payload.downward_files(context.pod, source.items, source.defaultMode, context.node())
    return _put(context, "downward-api", volume.name, files, in_memory=True)


async def set_up_projected(context: VolumeContext, volume: core_v1.Volume) -> VolumePath:
    source = volume.projected
    files: payload.Files = {}
    for part in source.sources or ():
        files |= await _projection_files(context, part, source.defaultMode)
    return _put(context, "projected", volume.name, files, in_memory=True)


async def _projection_files(context: VolumeContext, part: core_v1.VolumeProjection, mode: int | None) -> payload.Files:
    if part.configMap is not None:
        return await _config_map_files(context, part.configMap, mode)
    if part.secret is not None:
        return await _secret_files(context, part.secret.name or "", part.secret.items, mode, part.secret.optional)
    if part.downwardAPI is not None:
        return payload.downward_files(context.pod, part.downwardAPI.items, mode, context.node())
    if part.serviceAccountToken is not None:
        token = part.serviceAccountToken
        try:
            value = await context.objects.token(context.pod, token.audience or "", token.expirationSeconds)
        except errors.ApiError as error:
            raise VolumeError(f"failed to fetch token: {error}") from error
        own_mode, uid = payload.token_owner(context.pod)
        return {token.path: FileContent(value.encode(), own_mode, uid)}
    if part.clusterTrustBundle is not None:
        raise VolumeError("clusterTrustBundle projections are not supported on this node")
    return {}


async def _config_map_files(
    context: VolumeContext, source: core_v1.ConfigMapVolumeSource | core_v1.ConfigMapProjection, mode: int | None
) -> payload.Files:
    name = source.name or ""
    found = await context.objects.config_map(context.namespace, name, context.uid)
    data = None if found is None else payload.config_map_data(found)
    what = f'configmap "{name}"' if data is None else f"configmap references non-existent config key in {name}:"
    return _keyed(what, data, source.items, mode, source.optional)


async def _secret_files(
    context: VolumeContext,
    name: str,
    items: list[core_v1.KeyToPath] | None,
    mode: int | None,
    optional: bool | None,
) -> payload.Files:
    found = await context.objects.secret(context.namespace, name, context.uid)
    data = None if found is None else payload.secret_data(found)
    return _keyed(f'secret "{name}"', data, items, mode, optional)


def _keyed(what: str, data, items, mode: int | None, optional: bool | None) -> payload.Files:  # type: ignore[no-untyped-def]
    try:
        return payload.keyed_files(what, data, items, mode, optional=bool(optional))
    except MissingReference as error:
        raise VolumeError(str(error)) from error


def _put(
    context: VolumeContext, plugin: str, name: str, files: payload.Files, *, in_memory: bool = False
) -> VolumePath:
    path: Path = context.volume_dir(plugin, name)
    if in_memory and not mounting.is_mount_point(str(path)):
        # Secrets, tokens and what stands beside them never touch the disk.
        mounting.mount_tmpfs(str(path), mode=0o755)
    path.chmod(0o777 if context.fs_group is None else 0o2775)
    try:
        atomic_writer.write(path, files, gid=context.fs_group)
    except UnsafePath as error:
        raise VolumeError(str(error)) from error
    return VolumePath(str(path), read_only=True)
