"""Images made on the spot, since no registry is assumed: busybox from Debian's static binary."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from cri.images.build import build

BUSYBOX = "cutaway.test/busybox:1"


def busybox_root(directory: Path) -> Path:
    """A root file system of the static busybox, its applets as links, and a few users."""
    root = directory / "rootfs"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "home", "root", "var/log", "usr/bin", "sbin"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    binary = shutil.which("busybox")
    if binary is None:
        raise FileNotFoundError("busybox: install busybox-static")
    shutil.copy(binary, root / "bin/busybox")
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            os.symlink("/bin/busybox", root / "bin" / applet)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nalice:x:1000:1000:Alice:/home:/bin/sh\n"
    )
    (root / "etc/group").write_text(
        "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\nextra:x:51:alice,bob\nnogroup:x:65534:\n"
    )
    return root


def busybox_archive(directory: Path, name: str = BUSYBOX, config: dict[str, Any] | None = None) -> Path:
    """An OCI archive of busybox whose default command sleeps for ever."""
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / "image.tar"
    defaults = {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["IMAGE_VARIABLE=from-image"], "WorkingDir": "/"}
    build(busybox_root(directory), name, archive, {**defaults, **(config or {})})
    return archive


def add_layer(archive: Path, target: Path, files: dict[str, tuple[str, int]]) -> Path:
    """The image of an OCI archive with one more layer, of these files: name -> (text, owner's id)."""
    with tarfile.open(archive) as source:
        parts = {m.name: source.extractfile(m).read() for m in source if m.isfile()}  # type: ignore[union-attr]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name, (text, owner) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid, member.mode = len(text), owner, owner, 0o644
            layer.addfile(member, io.BytesIO(text.encode()))

    def put(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        parts[f"blobs/sha256/{digest}"] = data
        return f"sha256:{digest}", len(data)

    def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(parts["blobs/sha256/" + descriptor["digest"].partition(":")[2]]))

    index = json.loads(parts["index.json"])
    manifest = blob(index["manifests"][0])
    config = blob(manifest["config"])
    digest, size = put(buffer.getvalue())
    manifest["layers"].append({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
    config["rootfs"]["diff_ids"].append(digest)
    for holder, value in ((manifest["config"], config), (index["manifests"][0], manifest)):
        holder["digest"], holder["size"] = put(json.dumps(value).encode())
    parts["index.json"] = json.dumps(index).encode()
    with tarfile.open(target, "w") as made:
        for name, data in parts.items():
            if name == "manifest.json":
                continue  # Docker's own list tells of the image as it was
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return target
