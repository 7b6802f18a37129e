"""The images that containerd has, as the CRI sees them.

An image in the CRI's sense is one configuration (its digest is the image's id) with the names that lead to it. As
containerd's own CRI plugin does, each has up to three names in containerd: by tag, by repository digest, and by id.
Nothing is cached but what digests make unchangeable, so an image that somebody else loads is seen at once.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import accounts
from cri import containerd_api as api
from cri.accounts import Accounts
from cri.config import Config
from cri.containerd_client import Containerd
from cri.errors import AlreadyExists, CriError, InvalidArgument, NotFound
from cri.images import content, platform, reference
from cri.images.unpack import chain_ids, diff_ids_of

# What an image's labels may hold in containerd: nothing from the image itself.
MANAGED_LABELS = {"io.cri-containerd.image": "managed"}
# Resolved images and their accounts are a few kilobytes each.
_CACHE_MAX = 512


class Resolved(msgspec.Struct, frozen=True):
    """What an index or manifest digest leads to, on this machine's platform. It never changes."""

    id: str
    chain_id: str
    config: dict[str, Any]
    size: int


class ImageInfo(msgspec.Struct, frozen=True):
    """An image as a container needs it."""

    id: str
    name: str
    reference: str
    chain_id: str
    config: dict[str, Any]

    @property
    def user(self) -> str:
        return str(self.config.get("User") or "")

    @property
    def stop_signal(self) -> str:
        return str(self.config.get("StopSignal") or "")


class Entry:
    """One image id with its names."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.tags: list[str] = []
        self.digests: list[str] = []
        self.names: list[str] = []


async def resolve_target(
    ctd: Containerd, digest: str, media_type: str
) -> tuple[Mapping[str, Any], Mapping[str, Any], int]:
    """(manifest, image configuration, size in bytes) behind a target digest."""
    document = await content.read_json(ctd, digest)
    if media_type in content.INDEXES or "manifests" in document:
        chosen = platform.choose(document["manifests"], digest)
        digest, size = chosen["digest"], chosen.get("size", 0)
        document = await content.read_json(ctd, digest)
    else:
        size = 0
    try:
        config = await content.read_json(ctd, document["config"]["digest"])
        size += document["config"]["size"] + sum(layer["size"] for layer in document["layers"])
    except (KeyError, TypeError) as error:
        raise InvalidArgument(f"manifest {digest} has no {error}") from error
    return document, config, size


class ImageStore:
    def __init__(self, ctd: Containerd, config: Config) -> None:
        self._ctd = ctd
        self._config = config
        self._resolved: dict[str, Resolved] = {}
        self._accounts: dict[str, Accounts] = {}
        self._directory = ""

    async def entries(self) -> dict[str, Entry]:
        """Every complete image by id."""
        listed = (await self._ctd.images.List(api.images.ListImagesRequest())).images
        result: dict[str, Entry] = {}
        for image in listed:
            with contextlib.suppress(CriError):  # content of an image that is being pulled or removed
                resolved = await self._resolve(image.target)
                entry = result.setdefault(resolved.id, Entry(resolved))
                entry.names.append(image.name)
                if "@" in image.name:
                    entry.digests.append(image.name)
                elif not reference.is_digest(image.name):
                    entry.tags.append(image.name)
        return result

    async def _resolve(self, target: Any) -> Resolved:
        known = self._resolved.get(target.digest)
        if known is None:
            manifest, config, size = await resolve_target(self._ctd, target.digest, target.media_type)
            chains = chain_ids(diff_ids_of(config))
            known = Resolved(
                manifest["config"]["digest"], chains[-1] if chains else "", dict(config.get("config") or {}), size
            )
            if len(self._resolved) >= _CACHE_MAX:
                self._resolved.pop(next(iter(self._resolved)))
            self._resolved[target.digest] = known
        return known

    async def find(self, text: str) -> Entry | None:
        """By reference, id, or the beginning of an id's hex part."""
        if not text:
            raise InvalidArgument("image: an empty reference")
        entries = await self.entries()
        bare = text.removeprefix("sha256:")
        if f"sha256:{bare}" in entries:
            return entries[f"sha256:{bare}"]
        try:
            name = reference.parse(text).name
        except InvalidArgument:
            name = ""
        for entry in entries.values():
            if name and name in entry.names:
                return entry
        if len(bare) >= 4 and set(bare) <= set("0123456789abcdef"):
            matches = [entry for key, entry in entries.items() if key.startswith(f"sha256:{bare}")]
            if len(matches) == 1:
                return matches[0]
        return None

    async def info(self, text: str) -> ImageInfo:
        """The image for a container; raises NotFound."""
        entry = await self.find(text)
        if entry is None:
            raise NotFound(f"image {text!r} is not present")
        resolved = entry.resolved
        first = entry.digests[0] if entry.digests else resolved.id
        return ImageInfo(resolved.id, entry.names[0], first, resolved.chain_id, resolved.config)

    async def accounts(self, image: ImageInfo) -> Accounts:
        """The users and groups in the image's root file system."""
        if not image.chain_id:
            return Accounts()
        known = self._accounts.get(image.chain_id)
        if known is None:
            known = await self._read_accounts(image.chain_id)
            if len(self._accounts) >= _CACHE_MAX:
                self._accounts.pop(next(iter(self._accounts)))
            self._accounts[image.chain_id] = known
        return known

    async def _read_accounts(self, chain_id: str) -> Accounts:
        key = f"accounts-{chain_id}"
        snapshotter = self._config.snapshotter
        view = api.snapshots.ViewSnapshotRequest(
            snapshotter=snapshotter, key=key, parent=chain_id, labels={"containerd.io/gc.root": "cutaway"}
        )
        try:
            mounts = (await self._ctd.snapshots.View(view)).mounts
        except AlreadyExists:  # two containers of a new image at once
            mounts = (
                await self._ctd.snapshots.Mounts(api.snapshots.MountsRequest(snapshotter=snapshotter, key=key))
            ).mounts
        try:
            return await asyncio.to_thread(accounts.read, layer_directories(mounts))
        except OSError as error:
            raise NotFound(f"users of the image: {error}") from error
        finally:
            with contextlib.suppress(NotFound):
                await self._ctd.snapshots.Remove(api.snapshots.RemoveSnapshotRequest(snapshotter=snapshotter, key=key))

    async def snapshot_directory(self) -> str:
        """Where the snapshotter keeps its files: the kubelet looks at that file system's free space."""
        if not self._directory:
            name = self._config.snapshotter
            request = api.introspection.PluginsRequest(filters=[f"type==io.containerd.snapshotter.v1,id=={name}"])
            for plugin in (await self._ctd.introspection.Plugins(request)).plugins:
                root = str(plugin.exports.get("root", ""))
                self._directory = root if _is_directory(root) else ""
        return self._directory or self._config.root

    def to_cri(self, entry: Entry, spec: cri.ImageSpec | None = None) -> cri.Image:
        resolved = entry.resolved
        image = cri.Image(
            id=resolved.id,
            repo_tags=entry.tags,
            repo_digests=entry.digests,
            size=resolved.size,
            pinned=any(name in self._config.pinned_images for name in (*entry.tags, *entry.digests)),
        )
        user = str(resolved.config.get("User") or "").partition(":")[0]
        if user.isdigit():
            if int(user) <= accounts.ID_MAX:
                image.uid.value = int(user)
        elif user:
            image.username = user
        if not user:
            image.uid.value = 0
        if spec is not None:
            image.spec.CopyFrom(spec)
        return image

    async def remove(self, text: str) -> None:
        """Removes every name of an image; the content follows when nothing else refers to it. Idempotent."""
        entry = await self.find(text)
        if entry is None:
            return
        for number, name in enumerate(entry.names):
            last = number == len(entry.names) - 1
            with contextlib.suppress(NotFound):
                # The last one waits for the collector, so that the space is free when the call returns.
                await self._ctd.images.Delete(api.images.DeleteImageRequest(name=name, sync=last), timeout=120)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)


async def put(ctd: Containerd, name: str, target: Any) -> None:
    """Makes a name lead to a target, whether or not it led elsewhere."""
    image = api.images.Image(name=name, target=target, labels=MANAGED_LABELS)
    try:
        await ctd.images.Create(api.images.CreateImageRequest(image=image))
    except AlreadyExists:
        mask = api.well_known.FieldMask(paths=["target", "labels"])
        await ctd.images.Update(api.images.UpdateImageRequest(image=image, update_mask=mask))


def layer_directories(mounts: Any) -> list[str]:
    """The read-only layers of a view, topmost first: a lone layer is a bind mount, several an overlay."""
    for mount in mounts:
        for option in mount.options:
            if option.startswith("lowerdir="):
                return str(option).removeprefix("lowerdir=").split(":")
        return [mount.source]
    raise InvalidArgument("a snapshot without mounts")
