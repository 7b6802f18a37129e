"""Building an image from a directory: one layer and a configuration, as an OCI archive. Reproducible.

    python -m cri.images.build DIR --name example.org/web:1 -o web.tar [--cmd '["nginx"]'] [--env A=b] …

The same directory gives the same bytes: entries sorted, owner root (or as they are, with --keep-owners), times at
SOURCE_DATE_EPOCH or zero, gzip without a name or time. Nothing is run and no symbolic link is followed.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cri import kernel
from cri.errors import CriError, InvalidArgument
from cri.images import content, reference

_GZIP_LEVEL = 6
_CHUNK_BYTES = 1024 * 1024


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashing(io.RawIOBase):
    """Passes bytes on and hashes them."""

    def __init__(self, target: _Writable) -> None:
        self._target = target
        self._sha = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._target.write(raw)
        self._sha.update(raw)
        self.size += len(raw)
        return len(raw)

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha.hexdigest()}"


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below the root, parents first, in the order of their names."""
    for name in sorted(os.listdir(root)):
        info = os.lstat(root / name)
        yield name, info
        if stat.S_ISDIR(info.st_mode):
            for inner, inner_info in _entries(root / name):
                yield f"{name}/{inner}", inner_info


def write_layer(root: Path, output: BinaryIO, *, keep_owners: bool, epoch: int) -> tuple[str, str, int]:
    """Writes the directory as a gzipped tar; returns (diff id, digest, size)."""
    compressed = _Hashing(output)
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=compressed, mtime=0) as zipped:
        plain = _Hashing(zipped)
        links: dict[tuple[int, int], str] = {}
        with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK_BYTES) as tar:
            for name, info in _entries(root):
                if stat.S_ISSOCK(info.st_mode):
                    continue
                member = _member(root, name, info, links)
                member.mtime = epoch
                member.uid, member.gid = (info.st_uid, info.st_gid) if keep_owners else (0, 0)
                if member.isreg():
                    with open(root / name, "rb") as file:
                        tar.addfile(member, file)
                else:
                    tar.addfile(member)
    return plain.digest, compressed.digest, compressed.size


def _member(root: Path, name: str, info: os.stat_result, links: dict[tuple[int, int], str]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(info.st_mode)
    key = (info.st_dev, info.st_ino)
    if stat.S_ISLNK(info.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(root / name)
    elif stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISREG(info.st_mode) and info.st_nlink > 1 and key in links:
        member.type, member.linkname = tarfile.LNKTYPE, links[key]
    elif stat.S_ISREG(info.st_mode):
        member.size = info.st_size
        links[key] = name
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        member.type = tarfile.CHRTYPE if stat.S_ISCHR(info.st_mode) else tarfile.BLKTYPE
        member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    else:
        member.type = tarfile.FIFOTYPE
    return member


def build(
    root: Path, name: str, output: Path, config: Mapping[str, Any] | None = None, *, keep_owners: bool = False
) -> str:
    """Writes an OCI archive of one image to `output`; returns the image's id (its configuration's digest).

    `config` is the OCI image configuration's `config` object (Entrypoint, Cmd, Env, User, WorkingDir, …).
    """
    full_name = reference.parse(name).name
    if not root.is_dir():
        raise InvalidArgument(f"{root} is not a directory")
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.") as layer:
        diff_id, digest, size = write_layer(root, layer, keep_owners=keep_owners, epoch=epoch)  # type: ignore[arg-type]
        layer.flush()
        documents, image_id = _documents(full_name, dict(config or {}), diff_id, digest, size)
        temporary = output.with_name(f".{output.name}.new")
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for path, data in documents.items():
                tar.addfile(_file(path, len(data), epoch), io.BytesIO(data))
            with open(layer.name, "rb") as file:
                tar.addfile(_file(f"blobs/{digest.replace(':', '/')}", size, epoch), file)
        os.replace(temporary, output)
    return image_id


def _file(path: str, size: int, epoch: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mtime, member.mode = size, epoch, 0o644
    return member


def _documents(name: str, config: dict[str, Any], diff_id: str, digest: str, size: int) -> tuple[dict[str, bytes], str]:
    """The layout's JSON files by path, and the image's id."""
    architecture, variant = kernel.machine()
    machine = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
    documents: dict[str, bytes] = {}

    def add(document: Any, media_type: str) -> dict[str, Any]:
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        key = f"sha256:{hashlib.sha256(data).hexdigest()}"
        documents[f"blobs/{key.replace(':', '/')}"] = data
        return {"mediaType": media_type, "digest": key, "size": len(data)}

    image = add({**machine, "config": config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}, content.OCI_CONFIG)
    layer = {"mediaType": f"{content.OCI_LAYER}+gzip", "digest": digest, "size": size}
    manifest = add(
        {"schemaVersion": 2, "mediaType": content.OCI_MANIFEST, "config": image, "layers": [layer]},
        content.OCI_MANIFEST,
    )
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {
        "schemaVersion": 2,
        "mediaType": content.OCI_INDEX,
        "manifests": [{**manifest, "annotations": names, "platform": machine}],
    }
    documents["index.json"] = json.dumps(index, sort_keys=True, separators=(",", ":")).encode()
    documents["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return documents, image["digest"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cri.images.build", description="Build an OCI archive from a directory."
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", required=True, help="the image's name, as example.org/web:1")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--entrypoint", type=json.loads, help="JSON list")
    parser.add_argument("--cmd", type=json.loads, help="JSON list")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--user", default="")
    parser.add_argument("--workdir", default="")
    parser.add_argument("--port", action="append", default=[], help="as 80/tcp")
    parser.add_argument(
        "--config", type=json.loads, default={}, help="more of the image's configuration, a JSON object"
    )
    parser.add_argument("--keep-owners", action="store_true", help="keep uid and gid of the files instead of root's")
    args = parser.parse_args(argv)
    config = {
        "Entrypoint": args.entrypoint,
        "Cmd": args.cmd,
        "Env": args.env,
        "User": args.user,
        "WorkingDir": args.workdir,
        "ExposedPorts": {port: {} for port in args.port},
    }
    try:
        chosen = {**args.config, **{key: value for key, value in config.items() if value}}
        print(build(args.directory, args.name, args.output, chosen, keep_owners=args.keep_owners))
    except (CriError, OSError) as error:
        print(f"image build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
