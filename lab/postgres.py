"""A private PostgreSQL for a cluster with several masters: its data in the cluster's folder, a unix socket, no port.

The server refuses to run as root. As root it gets a user namespace of its own, in which root's files belong to the
user `postgres`: so the data stays readable to nobody else, also below a folder that only root may enter.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg import sql

from lab.cluster import Cluster
from lab.components import Component
from lab.errors import LabError
from lab.process_spec import ProcessSpec

DATABASE = "cutaway"
USER = "cutaway"
PORT = 5432
NAME = "postgres"
START_SECONDS = 30.0
# Three apiservers with eight connections each, and room for tools. Small buffers: the apiservers read from their own
# caches, and the server sees little but appends.
SETTINGS = {"listen_addresses": "", "max_connections": "40", "shared_buffers": "32MB", "logging_collector": "off"}


def programs() -> Path:
    """The directory of the server's programs, newest version first. Raises LabError."""
    for candidate in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (candidate / "initdb").exists():
            return candidate
    found = shutil.which("initdb")
    if found is None:
        raise LabError("several masters need a PostgreSQL server", "apt-get install postgresql")
    return Path(found).parent


def data_directory(cluster: Cluster) -> Path:
    """Where the database lies."""
    return cluster.home / "postgres"


def socket_directory(cluster: Cluster) -> Path:
    """Where its socket is; only the cluster's owner may enter, which is all that protects it."""
    return cluster.home / "run" / "postgres"


def url(cluster: Cluster) -> str:
    """What an apiserver opens."""
    return f"postgresql://{USER}@/{DATABASE}?host={socket_directory(cluster)}&port={PORT}"


def component(cluster: Cluster) -> Component:
    """The server as a process of the cluster. Raises LabError if it is not installed."""
    settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
    argv = [
        *_as_postgres(), str(programs() / "postgres"), "-D", str(data_directory(cluster)),
        "-k", str(socket_directory(cluster)), "-p", str(PORT), *settings,
    ]  # fmt: skip
    spec = ProcessSpec(
        name=NAME,
        component=NAME,
        argv=argv,
        log=str(cluster.home / "logs" / f"{NAME}.log"),
        health=f"unix://{_socket(cluster)}",
        address=str(_socket(cluster)),
        # Its "fast" shutdown: SIGTERM would wait for every client to leave.
        stop_signal="SIGINT",
        stop_seconds=20.0,
    )
    return Component(spec)


def _socket(cluster: Cluster) -> Path:
    return socket_directory(cluster) / f".s.PGSQL.{PORT}"


def _as_postgres() -> list[str]:
    if os.geteuid() != 0:
        return []
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        account = pwd.getpwnam("nobody")
    return ["unshare", "--user", f"--map-user={account.pw_uid}", f"--map-group={account.pw_gid}", "--"]


def prepare(cluster: Cluster) -> bool:
    """Make the database's files if there are none; whether any were made. Raises LabError."""
    socket_directory(cluster).mkdir(parents=True, exist_ok=True, mode=0o700)
    data = data_directory(cluster)
    if (data / "PG_VERSION").exists():
        return False
    # In a folder beside it first: an interrupted initdb leaves nothing that looks like a database.
    fresh = data.with_name(f".{data.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    argv = [
        *_as_postgres(), str(programs() / "initdb"), "-D", str(fresh), "-U", USER, "-A", "trust", "-E", "UTF8",
        "--locale=C",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd="/")
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise LabError(f"initdb failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    fresh.replace(data)
    return True


def wait_ready(cluster: Cluster) -> None:
    """Wait until the server answers, and make the cluster's database if it has none. Raises LabError."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with _connect(cluster) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                if found is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
                return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise LabError(f"postgres: {str(error).strip()}", "`cutaway logs postgres` shows its log") from error
        time.sleep(0.05)


def _connect(cluster: Cluster, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=str(socket_directory(cluster)), port=PORT, user=USER, dbname=database, autocommit=True, connect_timeout=5
    )


def make_room(cluster: Cluster) -> None:
    """An empty database for a cluster that comes from elsewhere; what an earlier time has left is kept under another
    name. Raises LabError."""
    with _connect(cluster, DATABASE) as connection:
        used = connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public' LIMIT 1").fetchone()
    if used is not None:
        rename_database(cluster, DATABASE, f"{DATABASE}-{time.strftime('%Y%m%d-%H%M%S')}")
        wait_ready(cluster)


def rename_database(cluster: Cluster, old: str, new: str, *, replace: bool = False) -> None:
    """Rename a database that nobody uses; with `replace` in place of the one that has the name. Raises LabError."""
    try:
        with _connect(cluster) as connection:
            if replace:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(new)))
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
            )
    except psycopg.Error as error:
        raise LabError(f"postgres: {str(error).strip().splitlines()[0]}", "`cutaway status` says what runs") from error
