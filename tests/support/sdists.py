"""Source distributions of clients whose own tests are run against a cluster of ours."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER = Path(sys.prefix) / "sdists"
DOWNLOAD_SECONDS = 180


def unpacked(name: str, version: str, folder: Path) -> Path:
    """Put the sources into `folder`; where they are. Downloaded once for this virtual environment."""
    archive = FOLDER / f"{name}-{version}.tar.gz"
    if not archive.exists():
        FOLDER.mkdir(exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*download, "--no-binary", name, "-d", str(FOLDER), f"{name}=={version}"],
            check=True, timeout=DOWNLOAD_SECONDS,
        )  # fmt: skip
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    return folder / f"{name}-{version}"


def main() -> None:
    """Download what is named: `python -m tests.support.sdists kr8s==0.20.15 …`; part of the tests' set-up."""
    import tempfile

    for pinned in sys.argv[1:]:
        name, _, version = pinned.partition("==")
        with tempfile.TemporaryDirectory() as folder:
            unpacked(name, version, Path(folder))


if __name__ == "__main__":
    main()
