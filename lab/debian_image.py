"""Root file systems out of Debian (or Ubuntu) packages, for images where no registry answers.

`make_nginx` lays Debian's nginx, the libraries that it needs, and busybox into a folder, arranged like the
`nginx` image that people know: it listens on port 80, serves /usr/share/nginx/html, reads /etc/nginx/conf.d/*.conf and
logs to stdout. The packages come through apt from whatever mirror the machine uses, are checked by apt, and are not
installed on the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.network import run

NGINX_PACKAGES = ("nginx", "nginx-common", "busybox", "libc6", "base-files", "netbase", "media-types")
_MAIN_CONFIG = """\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 512; }
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log /dev/stdout;
  sendfile on;
  keepalive_timeout 65;
  include /etc/nginx/conf.d/*.conf;
}
"""
_DEFAULT_SITE = """\
server {
  listen 80 default_server;
  server_name localhost;
  location / {
    root /usr/share/nginx/html;
    index index.html;
  }
}
"""
# Enough users for nginx's worker and for images that name one.
_USERS = (
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
)
_GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"


def make_nginx(root: Path) -> list[str]:
    """Fill `root`; the image's entry point."""
    packages = sorted({*NGINX_PACKAGES, *_libraries_of("nginx")})
    with tempfile.TemporaryDirectory(prefix="cutaway-debs-") as folder:
        _download(packages, Path(folder))
        for archive in sorted(Path(folder).glob("*.deb")):
            run("dpkg-deb", "--extract", str(archive), str(root))
    for unneeded in (
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/lintian",
        "usr/lib/systemd",
        "lib/systemd",
    ):
        shutil.rmtree(root / unneeded, ignore_errors=True)
    _lay_out(root)
    return ["/usr/sbin/nginx", "-g", "daemon off;"]


def _libraries_of(package: str) -> list[str]:
    """The library packages that a package depends on, directly or not."""
    listing = run(
        "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
        "--no-replaces", "--no-enhances", package,
    )  # fmt: skip
    names = {line.strip() for line in listing.splitlines() if line and not line.startswith((" ", "<"))}
    wanted = ("libc6", "libcrypt1", "libpcre", "libssl", "zlib1g", "libzstd", "libgcc-s1")
    found = sorted(name for name in names if name.startswith(wanted) and ":" not in name)
    if not found:
        raise LabError(f"apt knows no package {package}", "run `apt-get update`")
    return found


def _download(packages: list[str], folder: Path) -> None:
    # apt fetches as the user _apt, who must be able to write here.
    folder.chmod(0o777)
    done = subprocess.run(["apt-get", "download", *packages], cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise LabError(f"cannot download {' '.join(packages)}: {done.stderr.strip()}", "run `apt-get update`")


def _lay_out(root: Path) -> None:
    for name in (
        "dev",
        "proc",
        "sys",
        "tmp",
        "run",
        "root",
        "var/log/nginx",
        "var/lib/nginx",
        "etc/nginx/conf.d",
        "usr/share/nginx/html",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(_USERS)
    (root / "etc/group").write_text(_GROUP)
    (root / "etc/nginx/nginx.conf").write_text(_MAIN_CONFIG)
    (root / "etc/nginx/conf.d/default.conf").write_text(_DEFAULT_SITE)
    (root / "usr/share/nginx/html/index.html").write_text("<h1>Welcome to nginx!</h1>\n")
    install_busybox(root)


def install_busybox(root: Path) -> None:
    """Link every applet of the busybox below `root` that no real program provides."""
    busybox = next((root / p for p in ("bin/busybox", "usr/bin/busybox") if (root / p).exists()), None)
    if busybox is None:
        raise LabError(f"no busybox below {root}")
    inside = "/" + str(busybox.relative_to(root))
    for line in run(str(busybox), "--list-full").splitlines():
        target = root / line
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() and not target.is_symlink():
            os.symlink(inside, target)
