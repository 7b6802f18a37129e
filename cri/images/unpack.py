"""An image's layers as snapshots: each applied by containerd on top of its parent, named by its chain id.

chain(0) = diff(0); chain(n) = sha256(chain(n-1) + " " + diff(n))   (OCI image spec, "Layer ChainID")
"""

import contextlib
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from cri import containerd_api as api
from cri.containerd_client import Containerd
from cri.errors import AlreadyExists, CriError, InvalidArgument, NotFound
from cri.images import content
from cri.images.reference import is_digest

# Gigabytes of layer on a slow disk.
_APPLY_TIMEOUT_SECONDS = 900.0
# A snapshot of this label is known by the name in it before it is committed under a key of its own.
_SNAPSHOT_REF = "containerd.io/snapshot.ref"


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    chains: list[str] = []
    for diff_id in diff_ids:
        if not chains:
            chains.append(diff_id)
        else:
            chains.append("sha256:" + hashlib.sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest())
    return chains


def diff_ids_of(config: Any) -> list[str]:
    """The layers' digests in an image configuration; raises InvalidArgument for what is none."""
    root = config.get("rootfs") if isinstance(config, dict) else None
    found = (root.get("diff_ids") if isinstance(root, dict) else None) or []
    if not isinstance(root, dict) or not isinstance(found, list) or not all(is_digest(str(item)) for item in found):
        raise InvalidArgument("the image's configuration has no rootfs with diff_ids")
    if not isinstance(config.get("config") or {}, dict):
        raise InvalidArgument("the image's configuration has a config that is no object")
    return [str(item) for item in found]


async def unpack(
    ctd: Containerd, snapshotter: str, manifest: Mapping[str, Any], config: Mapping[str, Any], lease_name: str
) -> str:
    """Makes the snapshots that are missing; returns the chain id of the topmost.

    Raises InvalidArgument when a layer, once unpacked, is not what the image's configuration says.
    """
    layers: Sequence[Mapping[str, Any]] = manifest.get("layers") or []
    diff_ids = diff_ids_of(config)
    if len(layers) != len(diff_ids):
        raise InvalidArgument(f"image has {len(layers)} layers and {len(diff_ids)} diff ids")
    chains = chain_ids(diff_ids)
    for number, (layer, diff_id, chain) in enumerate(zip(layers, diff_ids, chains, strict=True)):
        parent = chains[number - 1] if number else ""
        if not await _committed(ctd, snapshotter, chain, lease_name):
            await _apply(ctd, snapshotter, layer, diff_id, chain, parent, lease_name)
    if chains:
        label = {f"containerd.io/gc.ref.snapshot.{snapshotter}": chains[-1]}
        await content.label(ctd, manifest["config"]["digest"], label)
    return chains[-1] if chains else ""


async def _committed(ctd: Containerd, snapshotter: str, chain: str, lease_name: str) -> bool:
    """Whether the snapshot is there; held by the lease first, so that it can't be collected after the answer."""
    resource = api.leases.Resource(id=chain, type=f"snapshots/{snapshotter}")
    await ctd.leases.AddResource(api.leases.AddResourceRequest(id=lease_name, resource=resource))
    try:
        await ctd.snapshots.Stat(api.snapshots.StatSnapshotRequest(snapshotter=snapshotter, key=chain))
    except NotFound:
        return False
    return True


async def _apply(
    ctd: Containerd, snapshotter: str, layer: Mapping[str, Any], diff_id: str, chain: str, parent: str, lease_name: str
) -> None:
    key = f"extract-{secrets.token_hex(6)} {chain}"
    messages = api.snapshots
    prepare = messages.PrepareSnapshotRequest(
        snapshotter=snapshotter, key=key, parent=parent, labels={_SNAPSHOT_REF: chain}
    )
    try:
        mounts = (await ctd.snapshots.Prepare(prepare, lease=lease_name)).mounts
    except AlreadyExists:
        return  # unpacked by another pull at the same time
    try:
        descriptor = api.types.Descriptor(media_type=layer["mediaType"], digest=layer["digest"], size=layer["size"])
        request = api.diff.ApplyRequest(diff=descriptor, mounts=mounts)
        answer = await ctd.diff.Apply(request, timeout=_APPLY_TIMEOUT_SECONDS, lease=lease_name)
        if answer.applied.digest != diff_id:
            raise InvalidArgument(
                f"layer {layer['digest']} unpacks to {answer.applied.digest}, its image says {diff_id}"
            )
        with contextlib.suppress(AlreadyExists):
            commit = messages.CommitSnapshotRequest(snapshotter=snapshotter, name=chain, key=key)
            await ctd.snapshots.Commit(commit, lease=lease_name)
            return
        await _remove(ctd, snapshotter, key)
    except BaseException:
        await _remove(ctd, snapshotter, key)
        raise


async def _remove(ctd: Containerd, snapshotter: str, key: str) -> None:
    with contextlib.suppress(CriError):
        await ctd.snapshots.Remove(api.snapshots.RemoveSnapshotRequest(snapshotter=snapshotter, key=key))
