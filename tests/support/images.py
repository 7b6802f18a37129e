"""Images made on the spot, since no registry is assumed: busybox from Debian's static binary."""

import os
import shutil
import subprocess
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
