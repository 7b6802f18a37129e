"""A state or a clock that an apiserver can't work with: one clear line, exit code 2, and nothing has changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from storage import open_store
from tests.support.apiserver_process import ROOT, ApiServerProcess
from tests.support.postgres import find_binaries, run_postgres

SECONDS_MAX = 30
EXIT_FATAL = 2


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> ApiServerProcess:
    """An apiserver that has run on its database and is stopped."""
    server = ApiServerProcess(tmp_path_factory.mktemp("used")).start()
    server.stop()
    return server


class Place:
    """A copy of the state, and an apiserver that is to start on it."""

    def __init__(self, used: ApiServerProcess, directory: Path) -> None:
        self.directory = directory / "state"
        self.directory.mkdir()
        self.file = self.directory / "state.db"
        shutil.copy(used.directory / "state.db", self.file)
        self.settings = {**used.settings, "storage_url": f"sqlite:///{self.file}"}
        self.config = directory / "apiserver.yaml"

    def digest(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def change(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            connection.execute(statement)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def start(self, **environment: str) -> str:
        """What it says before it gives up."""
        self.config.write_text(yaml.safe_dump(self.settings))
        done = subprocess.run(
            [sys.executable, "-m", "services.apiserver", "--config", str(self.config)],
            capture_output=True, text=True, timeout=SECONDS_MAX, cwd=ROOT, env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == EXIT_FATAL, done.stderr
        [line] = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("apiserver: ")]
        assert "Traceback" not in done.stderr
        return line


@pytest.fixture
def place(used: ApiServerProcess, tmp_path: Path) -> Place:
    return Place(used, tmp_path)


def test_a_database_of_a_newer_version(place: Place) -> None:
    place.change("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    before = place.digest()
    assert "has schema 99; this version of Cutaway knows up to" in place.start()
    assert place.digest() == before


def test_another_clusters_database(place: Place) -> None:
    place.change("UPDATE meta SET value = 'theirs' WHERE key = 'cluster_id'")
    place.settings["cluster_id"] = "ours"
    before = place.digest()
    assert "belongs to cluster theirs, not to ours" in place.start()
    assert place.digest() == before


def test_a_truncated_file(place: Place) -> None:
    os.truncate(place.file, place.file.stat().st_size // 2 // 4096 * 4096)
    before = place.digest()
    assert "state.db is damaged" in place.start()
    assert place.digest() == before


def test_a_file_that_is_no_database(place: Place) -> None:
    place.file.write_bytes(b"my notes\n" * 1000)
    before = place.digest()
    assert "damaged or not a database" in place.start()
    assert place.digest() == before


def test_a_file_that_another_apiserver_holds(place: Place, used: ApiServerProcess, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = ApiServerProcess(tmp_path / "first", used.pki, storage_url=place.settings["storage_url"]).start()
    try:
        assert first.process is not None
        assert f"is in use by process {first.process.pid}" in place.start()
    finally:
        assert first.stop(signal.SIGTERM) == 0


def test_a_file_that_another_program_has_locked(place: Place) -> None:
    with contextlib.closing(sqlite3.connect(place.file)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        assert "database is locked" in place.start()
        connection.rollback()


@pytest.fixture
def small_disk(place: Place) -> Iterator[Path]:
    """The state on a file system of 4 MiB."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a file system")
    kept = place.file.read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "cutaway-test", str(place.directory)], check=True)
    place.file.write_bytes(kept)
    yield place.directory
    subprocess.run(["umount", str(place.directory)], check=True)


def test_a_read_only_disk(place: Place, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "can't be written" in place.start()


def test_a_full_disk(place: Place, small_disk: Path) -> None:
    before = place.digest()
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    assert "no space left" in place.start()
    assert place.digest() == before


def test_a_clock_an_hour_behind_the_certificates(place: Place) -> None:
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        pytest.skip("needs libfaketime (Debian: faketime)")
    said = place.start(LD_PRELOAD=str(library), FAKETIME="-1h", FAKETIME_DONT_FAKE_MONOTONIC="1")
    assert "is not valid before" in said
    assert "this machine's clock says" in said


async def test_a_clock_behind_the_last_write_is_told_and_times_do_not_go_back(tmp_path: Path, caplog) -> None:
    from storage import ANY, Key, Put

    put = Put(Key("pods", "n", "a"), ANY, b"", b"")
    url = f"sqlite:///{tmp_path}/store.db"
    store = await open_store(url, clock=lambda: 10_000.0)
    await store.commit(put)
    await store.close()
    behind = await open_store(url, clock=lambda: 6_400.0)
    assert "the clock is 3600 s behind the last write" in caplog.text
    [event] = await behind.commit(put)
    assert event.time == 10_000.0
    await behind.close()


@pytest.mark.postgres
@pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs")
def test_a_wrong_password_or_a_server_that_is_not_there(place: Place) -> None:
    with run_postgres({"password_encryption": "scram-sha-256"}) as server:
        url = server.url()
        with server.connect() as connection:
            connection.execute("CREATE ROLE other LOGIN PASSWORD 'right'")
            rules = Path(server.data / "pg_hba.conf")
            rules.write_text("local all cutaway trust\nlocal all other scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        place.settings["storage_url"] = url.replace("cutaway@", "other:wrong@")
        said = place.start()
        assert "password authentication failed" in said
        assert "wrong@" not in said
    said = place.start()
    assert "storage_url:" in said
