"""A SQLite file that is not ours, damaged, held, full or not writable: one clear error, and what can go on does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import ANY, Key, Put, Store, open_store
from storage.errors import Corrupt, ReadOnly, StorageFull, Unavailable, WrongDatabase
from tests.support.store_checks import check_store

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a file system")


def put(name: str, size: int = 10) -> Put:
    return Put(Key("pods", "default", name), ANY, b"", b"x" * size)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)


async def fill(store: Store, acknowledged: list[tuple[int, Key]]) -> None:
    """Write until an error."""
    for number in range(10_000):
        (event,) = await store.commit(put(f"p{number % 50}", 10_000))
        acknowledged.append((event.revision, event.key))


async def make(path: Path, **options) -> None:
    store = await open_store(f"sqlite:///{path}", **options)
    for number in range(200):
        await store.commit(put(f"p{number % 50}", 1000))
    await store.close()


async def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(WrongDatabase, match="another program"):
        await open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


async def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"These are my notes, and they are longer than a header.\n" * 100)
    before = path.read_bytes()
    with pytest.raises(Corrupt, match=r"notes\.txt"):
        await open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


async def test_another_clusters_database_is_refused(tmp_path: Path) -> None:
    await make(tmp_path / "store.db", cluster_id="mine")
    with pytest.raises(WrongDatabase, match="belongs to cluster mine"):
        await open_store(f"sqlite:///{tmp_path}/store.db", cluster_id="yours")
    store = await open_store(f"sqlite:///{tmp_path}/store.db")
    assert store.cluster_id == "mine"
    await store.close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    await make(tmp_path / "store.db")
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    connection.close()
    with pytest.raises(WrongDatabase, match="schema 99"):
        await open_store(f"sqlite:///{tmp_path}/store.db")


async def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/store.db")
    program = (
        "import asyncio, sys\nfrom storage import open_store\n"
        "try:\n    asyncio.run(open_store(sys.argv[1]))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/store.db"]
    second = run(command)
    assert second.stdout == f"WrongDatabase {tmp_path}/store.db is in use by process {os.getpid()}\n", second.stderr
    await store.commit(put("a"))
    await store.close()
    await (await open_store(f"sqlite:///{tmp_path}/store.db")).close()


@pytest.mark.parametrize("keep", [0.3, 0.9])
async def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "store.db"
    await make(path)
    os.truncate(path, int(path.stat().st_size * keep) // 4096 * 4096)
    with pytest.raises(Corrupt, match=r"store\.db is damaged"):
        await open_store(f"sqlite:///{path}")


async def test_a_damaged_page_is_found_at_start(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await make(path)
    with path.open("r+b") as file:
        file.seek(8192 * 5)
        file.write(os.urandom(8192))
    with pytest.raises(Corrupt):
        await open_store(f"sqlite:///{path}")


async def test_a_log_that_is_ahead_of_the_counter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await make(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE counter SET revision = 100")
    connection.close()
    with pytest.raises(Corrupt, match="ends at revision 200"):
        await open_store(f"sqlite:///{path}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "cutaway-test", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@ROOT
async def test_a_full_disk_refuses_writes_serves_reads_and_recovers(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    store = await open_store(f"sqlite:///{small_disk}/store.db")
    acknowledged: list[tuple[int, Key]] = []
    with pytest.raises(StorageFull, match="no space left"):
        await fill(store, acknowledged)
    assert acknowledged
    with pytest.raises(StorageFull):
        await store.commit(put("large", 1_500_000))
    await check_store(store, acknowledged)
    ballast.unlink()
    (event,) = await store.commit(put("after", 10_000))
    acknowledged.append((event.revision, event.key))
    assert event.revision == len(acknowledged)
    await check_store(store, acknowledged)
    await store.close()
    again = await open_store(f"sqlite:///{small_disk}/store.db")
    await check_store(again, acknowledged)
    await again.close()


@ROOT
async def test_a_disk_that_is_full_from_the_start_is_told(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (8 * 1024 * 1024 - 16384))
    with pytest.raises(StorageFull):
        await open_store(f"sqlite:///{small_disk}/store.db")


@ROOT
async def test_a_read_only_disk_is_told(small_disk: Path) -> None:
    await make(small_disk / "store.db")
    run(["mount", "-o", "remount,ro", str(small_disk)])
    with pytest.raises(ReadOnly, match="can't be written"):
        await open_store(f"sqlite:///{small_disk}/store.db")
    run(["mount", "-o", "remount,rw", str(small_disk)])


async def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"absent/store\.db.*No such file"):
        await open_store(f"sqlite:///{tmp_path}/absent/store.db")
