"""A private PostgreSQL for tests and benchmarks: in a directory of its own, on a unix socket, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg


def find_binaries() -> Path | None:
    """The directory of the server's programs: what CUTAWAY_TEST_POSTGRES names, Debian's place (the newest version
    first), or the path."""
    if named := os.environ.get("CUTAWAY_TEST_POSTGRES"):
        return Path(named)
    for candidate in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (candidate / "initdb").exists():
            return candidate
    found = shutil.which("initdb")
    return Path(found).parent if found else None


class PostgresServer:
    """One server process. `url()` makes a new, empty database each time. With `primary`, which runs, it is its
    standby."""

    def __init__(
        self, directory: Path, *, settings: dict[str, str] | None = None, port: int = 5432,
        primary: PostgresServer | None = None,
    ) -> None:  # fmt: skip
        binaries = find_binaries()
        if binaries is None:
            raise FileNotFoundError("no PostgreSQL server programs (Debian: apt install postgresql)")
        self._bin = binaries
        self.directory = directory
        self.data = directory / "data"
        self._settings = {"listen_addresses": "", **(settings or {})}
        self.port = self._port = port
        # The server refuses to run as root.
        self._user = "postgres" if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(directory, account.pw_uid, account.pw_gid)
        if primary is not None:
            self._program(
                "pg_basebackup", "-D", str(self.data), "-h", str(primary.directory), "-p", str(primary.port),
                "-U", "cutaway", "-R", "-X", "stream", "-c", "fast", "--no-sync",
            )  # fmt: skip
            return
        self._program(
            "initdb", "-D", str(self.data), "-U", "cutaway", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"
        )

    def _program(self, name: str, *arguments: str) -> None:
        command = [str(self._bin / name), *arguments]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd="/")

    def start(self) -> None:
        """Start, and return when it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._program(
            "pg_ctl", "start", "-w", "-s", "-D", str(self.data), "-l", str(self.directory / "log"),
            "-o", " ".join(["-k", str(self.directory), "-p", str(self._port), *options]),
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop: "fast" cuts connections, "immediate" is a crash."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._program("pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", str(self.data))

    def promote(self) -> None:
        """Make a standby a primary."""
        self._program("pg_ctl", "promote", "-w", "-s", "-D", str(self.data))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the postmaster."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), number)

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A connection for the test itself."""
        return psycopg.connect(
            host=str(self.directory), port=self._port, user="cutaway", dbname=database, autocommit=True
        )

    def url(self) -> str:
        """The URL of a new database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        """The URL of a database by name."""
        return f"postgresql://cutaway@/{name}?host={self.directory}&port={self._port}"


@contextlib.contextmanager
def run_pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary that acknowledges nothing before its standby has it, and that standby."""
    with run_postgres() as primary, tempfile.TemporaryDirectory(prefix="cutaway-postgres-") as folder:
        standby = PostgresServer(Path(folder), primary=primary)
        standby.start()
        try:
            with primary.connect() as connection:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                connection.execute("SELECT pg_reload_conf()")
            yield primary, standby
        finally:
            standby.stop("immediate")


@contextlib.contextmanager
def run_postgres(settings: dict[str, str] | None = None, port: int = 5432) -> Iterator[PostgresServer]:
    """A running server, stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="cutaway-postgres-"))
    try:
        server = PostgresServer(directory, settings=settings, port=port)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
