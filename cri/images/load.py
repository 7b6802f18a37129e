"""Loading an image archive into containerd: OCI layouts and docker-archives, as tar files, also gzipped.

    python -m cri.images.load --socket /run/containerd/containerd.sock [--namespace k8s.io] ARCHIVE…

An archive is data of others: only members that its own index leads to are read, each by its digest, nothing is
written outside containerd's content store, and documents are bounded.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, BinaryIO

from cri import containerd_api as api
from cri.containerd_client import Containerd
from cri.errors import CriError, InvalidArgument, NotFound
from cri.images import content, platform, reference
from cri.images.store import put
from cri.images.unpack import unpack

_CHUNK_BYTES = 1024 * 1024
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Archive:
    """Random access to the members of an image archive."""

    def __init__(self, path: str) -> None:
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 — closed by `close`
            self._members = {
                self._clean(member.name): member for member in self._tar if member.isfile() or member.islnk()
            }
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InvalidArgument(f"{path}: not an image archive: {error}") from error

    @staticmethod
    def _clean(name: str) -> str:
        return name.removeprefix("./")

    def close(self) -> None:
        self._tar.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._members[name].size

    def open(self, name: str) -> BinaryIO:
        member = self._members.get(self._clean(name))
        file = self._tar.extractfile(member) if member else None
        if file is None:
            raise InvalidArgument(f"the archive has no file {name}")
        return file  # type: ignore[return-value]

    def document(self, name: str) -> Any:
        data = self.open(name).read(content.DOCUMENT_BYTES_MAX + 1)
        if len(data) > content.DOCUMENT_BYTES_MAX:
            raise InvalidArgument(f"{name} is larger than {content.DOCUMENT_BYTES_MAX} bytes")
        return content.parse_json(data, name)

    def blob(self, digest: str) -> str:
        if not reference.is_digest(digest):
            raise InvalidArgument(f"{digest!r} is not a digest")
        return f"blobs/{digest.replace(':', '/')}"

    async def chunks(self, name: str) -> AsyncIterator[bytes]:
        file = self.open(name)
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk


async def load_archive(ctd: Containerd, path: str, *, snapshotter: str = "overlayfs") -> list[str]:
    """Stores and unpacks every image of an archive; returns their names. An archive is taken whole or refused."""
    archive = await asyncio.to_thread(Archive, path)
    try:
        async with content.lease(ctd) as lease:
            if "index.json" in archive:
                images = await _store_layout(ctd, archive, lease)
            elif "manifest.json" in archive:
                images = await _store_docker(ctd, archive, lease)
            else:
                raise InvalidArgument(
                    f"{path}: neither an OCI layout (index.json) nor a docker-archive (manifest.json)"
                )
            for _, manifest, config, _ in images:
                await unpack(ctd, snapshotter, manifest, config, lease)
            names: list[str] = []
            for target, manifest, _, wanted in images:
                names += await name_image(ctd, target, manifest["config"]["digest"], wanted)
            return names
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        # Its documents are JSON, but not of the form that their format has.
        raise InvalidArgument(f"{path}: malformed image archive: {type(error).__name__}: {error}") from error
    finally:
        archive.close()


async def name_image(ctd: Containerd, target: Any, image_id: str, names: Sequence[str]) -> list[str]:
    """Gives an image its names, and the ones by digest and by id that go with them."""
    stored: list[str] = []
    for text in names:
        parsed = reference.parse(text)
        await put(ctd, parsed.name, target)
        stored.append(parsed.name)
        await put(ctd, f"{parsed.repository}@{target.digest}", target)
    await put(ctd, image_id, target)
    return stored or [image_id]


_Stored = tuple[Any, Mapping[str, Any], Mapping[str, Any], list[str]]


async def _store_layout(ctd: Containerd, archive: Archive, lease: str) -> list[_Stored]:
    index = archive.document("index.json")
    docker_names = _docker_names(archive)
    result: list[_Stored] = []
    for descriptor in index.get("manifests") or []:
        names = _layout_names(descriptor.get("annotations") or {}) or docker_names
        target = api.types.Descriptor(
            media_type=descriptor["mediaType"], digest=descriptor["digest"], size=descriptor["size"]
        )
        manifest = await _store_tree(ctd, archive, descriptor, lease)
        config = await content.read_json(ctd, manifest["config"]["digest"])
        result.append((target, manifest, config, names))
    if not result:
        raise InvalidArgument("index.json lists no manifest")
    return result


def _layout_names(annotations: Mapping[str, str]) -> list[str]:
    for key in _NAME_ANNOTATIONS:
        text = annotations.get(key, "")
        # A bare ref.name is a tag without a repository; containerd's annotation and most builders' have both.
        if text and ("/" in text or ":" in text or key == _NAME_ANNOTATIONS[0]):
            return [text]
    return []


def _docker_names(archive: Archive) -> list[str]:
    """`docker save` of newer engines writes both forms; the names may be only in the older one."""
    if "manifest.json" not in archive:
        return []
    entries = archive.document("manifest.json")
    return list(entries[0].get("RepoTags") or []) if len(entries) == 1 else []


async def _store_tree(
    ctd: Containerd, archive: Archive, descriptor: Mapping[str, Any], lease: str
) -> Mapping[str, Any]:
    """Stores what a descriptor leads to, leaves first; returns this machine's manifest."""
    document: Mapping[str, Any] = archive.document(archive.blob(descriptor["digest"]))
    if "manifests" in document:
        chosen = platform.choose(document["manifests"], descriptor["digest"])
        manifest = await _store_tree(ctd, archive, chosen, lease)
        # Only what is there may be referred to: other platforms' manifests are usually absent.
        labels = {"containerd.io/gc.ref.content.m.0": str(chosen["digest"])}
    else:
        manifest = document
        for part in (document["config"], *document["layers"]):
            await _store_blob(ctd, archive, part["digest"], lease, {})
        labels = content.references(document)
    await _store_blob(ctd, archive, descriptor["digest"], lease, labels)
    return manifest


async def _store_blob(ctd: Containerd, archive: Archive, digest: str, lease: str, labels: Mapping[str, str]) -> None:
    if await content.exists(ctd, digest, lease):
        if labels:
            await content.label(ctd, digest, labels)
        return
    name = archive.blob(digest)
    if name not in archive:
        raise NotFound(f"the archive has no blob {digest}")
    await content.write(ctd, digest, archive.size(name), archive.chunks(name), lease_name=lease, labels=labels)


async def _store_docker(ctd: Containerd, archive: Archive, lease: str) -> list[_Stored]:
    result: list[_Stored] = []
    for entry in archive.document("manifest.json"):
        config_bytes = archive.open(entry["Config"]).read(content.DOCUMENT_BYTES_MAX)
        config_digest = f"sha256:{hashlib.sha256(config_bytes).hexdigest()}"
        await content.write_bytes(ctd, config_digest, config_bytes, lease_name=lease)
        layers = []
        for name in entry["Layers"]:
            digest, size, media_type = await asyncio.to_thread(_layer_digest, archive, name)
            if not await content.exists(ctd, digest, lease):
                await content.write(ctd, digest, size, archive.chunks(name), lease_name=lease)
            layers.append({"mediaType": media_type, "digest": digest, "size": size})
        manifest = {
            "schemaVersion": 2,
            "mediaType": content.OCI_MANIFEST,
            "config": {"mediaType": content.OCI_CONFIG, "digest": config_digest, "size": len(config_bytes)},
            "layers": layers,
        }
        data = json.dumps(manifest, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        await content.write_bytes(ctd, digest, data, lease_name=lease, labels=content.references(manifest))
        target = api.types.Descriptor(media_type=content.OCI_MANIFEST, digest=digest, size=len(data))
        result.append(
            (target, manifest, content.parse_json(config_bytes, entry["Config"]), list(entry.get("RepoTags") or []))
        )
    return result


def _layer_digest(archive: Archive, name: str) -> tuple[str, int, str]:
    hasher, size, head = hashlib.sha256(), 0, b""
    file = archive.open(name)
    while chunk := file.read(_CHUNK_BYTES):
        head = head or chunk[:2]
        hasher.update(chunk)
        size += len(chunk)
    suffix = "+gzip" if head == b"\x1f\x8b" else ""
    return f"sha256:{hasher.hexdigest()}", size, content.OCI_LAYER + suffix


async def _main(args: argparse.Namespace) -> int:
    ctd = Containerd(args.socket, args.namespace)
    try:
        await ctd.ensure_namespace()
        for path in args.archive:
            for name in await load_archive(ctd, path, snapshotter=args.snapshotter):
                print(name)
    except CriError as error:
        print(f"image load: {error}", file=sys.stderr)
        return 1
    finally:
        await ctd.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cri.images.load", description="Load image archives into containerd."
    )
    parser.add_argument("--socket", required=True, help="containerd's socket")
    parser.add_argument("--namespace", default="k8s.io", help="containerd's namespace")
    parser.add_argument("--snapshotter", default="overlayfs")
    parser.add_argument("archive", nargs="+", help="OCI layout or docker-archive, tar or tar.gz")
    return asyncio.run(_main(parser.parse_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
