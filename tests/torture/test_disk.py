"""3. A disk that fails now and then: what was acknowledged is there, and the file is whole."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from storage import Key, open_store
from tests.support.apiserver_process import ROOT
from tests.support.store_checks import check_store
from tests.support.torture import figure, times

ACKNOWLEDGED = times(20_000, 400)
SECONDS = times(120, 12)

pytestmark = pytest.mark.skipif(shutil.which("fiu-run") is None, reason="needs libfiu (Debian: fiu-utils)")

FAULTS = {
    "EIO at write": "name=posix/io/rw/pwrite,failinfo=5,probability=0.01",
    "ENOSPC at write": "name=posix/io/rw/pwrite,failinfo=28,probability=0.01",
    "short write": "name=posix/io/rw/pwrite/reduce,probability=0.02",
    "EIO at flush": "name=posix/io/sync/fdatasync,failinfo=5,probability=0.02",
    "EIO at read": "name=posix/io/rw/pread,failinfo=5,probability=0.001",
    "EIO at truncate": "name=posix/io/rw/ftruncate,failinfo=5,probability=0.3",
    # As when the kernel makes a file system read-only under the process, after an error of its own.
    "EROFS at write": "name=posix/io/rw/pwrite,failinfo=30,probability=0.01",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_acknowledged_is_durable(tmp_path: Path, fault: str) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    await (await open_store(url)).close()
    command = [
        "fiu-run", "-x", "-f", "", "-c", f"enable_random {FAULTS[fault]}",
        sys.executable, "-m", "tests.support.store_stress", url, str(ACKNOWLEDGED), str(SECONDS),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = await asyncio.to_thread(
        subprocess.run,
        command, capture_output=True, text=True, timeout=SECONDS + 60, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    acknowledged, failed = [], 0
    for line in done.stdout.splitlines():
        first, _, name = line.partition(" ")
        if first == "failed":
            failed += 1
        else:
            acknowledged.append((int(first), Key("pods", "default", name)))
    assert acknowledged
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    store = await open_store(url)
    newest = await check_store(store, acknowledged)
    await store.close()
    figure(3, f"{fault}: {len(acknowledged)} acknowledged, {failed} refused, none lost of {newest} revisions")
