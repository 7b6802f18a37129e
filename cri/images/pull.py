"""PullImage: from a registry into containerd's content store, unpacked and named.

CRI has no word for how far a pull is: every few seconds the log tells the bytes (`cutaway` shows them to who waits).

A lease holds everything until the names do, so that a pull that fails or is killed leaves nothing for ever. Two
pulls of the same image at the same time are one.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri.config import Config
from cri.containerd_client import Containerd
from cri.errors import FailedPrecondition, InvalidArgument, Unavailable
from cri.images import content, platform, reference
from cri.images.load import name_image
from cri.images.reference import Reference
from cri.images.registry import RegistryClient, credentials
from cri.images.unpack import unpack
from cri.logs import log

_ATTEMPTS = 3
_LAYERS_MAX = 256
_PROGRESS_SECONDS = 2.0  # between two words about a pull


@dataclass(slots=True)
class Progress:
    """How far one pull is: bytes of the image's blobs, those that were there already included."""

    total_bytes: int = 0
    received_bytes: int = 0

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks. What a broken attempt brought is taken back: its next one begins anew."""
        complete = 0
        try:
            async for chunk in chunks:
                complete += len(chunk)
                self.received_bytes += len(chunk)
                yield chunk
        except BaseException:
            self.received_bytes -= complete
            raise


class Puller:
    """Pulls, at most `max_concurrent_pulls` at once."""

    def __init__(self, ctd: Containerd, config: Config) -> None:
        self._ctd = ctd
        self._config = config
        self._slots = asyncio.Semaphore(config.max_concurrent_pulls)
        self._layer_slots = asyncio.Semaphore(config.max_concurrent_layers)
        self._underway: dict[tuple[str, bytes], asyncio.Task[str]] = {}

    async def pull(self, image: str, auth: cri.AuthConfig | None) -> str:
        """Returns the image's id. Raises NotFound, PermissionDenied, Unavailable, InvalidArgument."""
        parsed = reference.parse(image)
        # Somebody else's credentials must not give an image to who has none, so they are part of what is the same.
        key = (parsed.name, auth.SerializeToString(deterministic=True) if auth else b"")
        task = self._underway.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull(parsed, auth), name=f"pull {parsed.name}")
            self._underway[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        # The work goes on for others who wait for it, and for the retry of one who gave up.
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, bytes], done: "asyncio.Task[str]") -> None:
        self._underway.pop(key, None)
        # Everybody who waited may have gone; the failure is then told to nobody, and that is no error.
        if not done.cancelled():
            done.exception()

    async def _pull(self, parsed: Reference, auth: cri.AuthConfig | None) -> str:
        settings = self._config.registries.get(parsed.host)
        login = credentials(parsed.host, auth, settings.auth if settings else None)
        async with self._slots, content.lease(self._ctd) as lease, RegistryClient(parsed, settings, login) as registry:
            log.info("pulling image", image=parsed.name)
            digest, media_type, data = await registry.manifest(parsed.digest or parsed.tag)
            target = api.types.Descriptor(media_type=media_type, digest=digest, size=len(data))
            manifest = await self._store_documents(registry, digest, media_type, data, lease, parsed.name)
            await self._store_blobs(registry, manifest, lease, parsed.name)
            config = await content.read_json(self._ctd, manifest["config"]["digest"])
            await unpack(self._ctd, self._config.snapshotter, manifest, config, lease)
            image_id = str(manifest["config"]["digest"])
            await name_image(self._ctd, target, image_id, [parsed.name])
            log.info("pulled image", image=parsed.name, id=image_id, digest=digest)
            return image_id

    async def _store_documents(
        self, registry: RegistryClient, digest: str, media_type: str, data: bytes, lease: str, name: str
    ) -> Mapping[str, Any]:
        """Stores the manifest, and the index above it if there is one; returns the manifest."""
        document = _document(data, digest)
        if media_type in content.INDEXES or "manifests" in document:
            chosen = platform.choose(document["manifests"], name)
            inner_digest, inner_type, inner = await registry.manifest(chosen["digest"])
            manifest = await self._store_documents(registry, inner_digest, inner_type, inner, lease, name)
            labels = {"containerd.io/gc.ref.content.m.0": inner_digest}
        else:
            manifest = document
            _check_manifest(manifest, name)
            labels = content.references(manifest)
        await content.write_bytes(self._ctd, digest, data, lease_name=lease, labels=labels)
        return manifest

    async def _store_blobs(self, registry: RegistryClient, manifest: Mapping[str, Any], lease: str, name: str) -> None:
        wanted = {part["digest"]: int(part["size"]) for part in (manifest["config"], *manifest["layers"])}
        progress = Progress(sum(wanted.values()))
        telling = asyncio.ensure_future(_tell(progress, name))
        tasks = [
            asyncio.ensure_future(self._store_blob(registry, digest, size, lease, progress))
            for digest, size in wanted.items()
        ]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            telling.cancel()

    async def _store_blob(
        self, registry: RegistryClient, digest: str, size: int, lease: str, progress: Progress
    ) -> None:
        async with self._layer_slots:
            if await content.exists(self._ctd, digest, lease):
                progress.received_bytes += size
                return
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    await content.write(
                        self._ctd, digest, size, progress.counted(registry.blob(digest)), lease_name=lease
                    )
                    return
                except Unavailable as error:
                    if attempt == _ATTEMPTS:
                        raise
                    log.warning("fetching a blob again", digest=digest, error=str(error), attempt=attempt)
                    await asyncio.sleep(0.5 * 2**attempt)
                except FailedPrecondition as error:
                    raise InvalidArgument(f"blob {digest} is not what its digest says: {error}") from error


async def _tell(progress: Progress, name: str) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        log.info("pulling image", image=name, received_bytes=progress.received_bytes, total_bytes=progress.total_bytes)


def _document(data: bytes, digest: str) -> Mapping[str, Any]:
    document = content.parse_json(data, f"manifest {digest}")
    if not isinstance(document, dict):
        raise InvalidArgument(f"manifest {digest} is not a JSON object")
    return document


def _check_manifest(manifest: Mapping[str, Any], name: str) -> None:
    """Refuses what is no image manifest, schema 1 included."""
    layers, config = manifest.get("layers"), manifest.get("config")
    if not isinstance(layers, list) or not isinstance(config, dict):
        raise InvalidArgument(f"image {name}: its manifest has no config and layers (schema 1 is not supported)")
    if len(layers) > _LAYERS_MAX:
        raise InvalidArgument(f"image {name}: {len(layers)} layers are more than {_LAYERS_MAX}")
    for part in (config, *layers):
        good = (
            isinstance(part, dict)
            and reference.is_digest(str(part.get("digest")))
            and isinstance(part.get("size"), int)
        )
        if not good or part["size"] < 0:
            raise InvalidArgument(f"image {name}: its manifest has a descriptor without digest and size")
