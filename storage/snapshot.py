"""A database of ours as a tool opens it: beside the apiserver that writes to it, as of one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from storage import postgres, sqlite
from storage.errors import WrongDatabase
from storage.schema import SCHEMA_VERSION, meta


@contextmanager
def reader(url: URL) -> Iterator[Connection]:
    """A transaction that sees one snapshot and writes nothing."""
    if url.get_backend_name() == "sqlite":
        path = existing(url)
        engine = create_engine("sqlite://", creator=lambda: open_read_only(path))
        # The driver begins a transaction for writes only: each SELECT would see another moment.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    else:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    with _used(engine, url), engine.connect() as connection:
        yield connection


@contextmanager
def server(url: URL) -> Iterator[Engine]:
    """A PostgreSQL database that is written to."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with _used(engine, url):
        yield engine


@contextmanager
def changed_file(path: Path) -> Iterator[Connection]:
    """One transaction on a SQLite file that nobody else has."""
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url)
    with _used(engine, url), engine.begin() as connection:
        yield connection


@contextmanager
def _used(engine: Engine, url: URL) -> Iterator[None]:
    """Its errors are the store's, and it is let go of in the end."""
    try:
        yield
    except DBAPIError as error:
        if url.get_backend_name() == "sqlite":
            raise sqlite.translate(error, path_of(url)) or error from error
        raise postgres.translate(error, str(url.database)) or error from error
    finally:
        engine.dispose()


def open_read_only(path: Path) -> sqlite3.Connection:
    """The driver's connection, which leaves it to us when a transaction begins."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)


def path_of(url: URL) -> Path:
    """The file of a SQLite store. Raises WrongDatabase."""
    if not url.database or url.database == ":memory:":
        raise WrongDatabase("a SQLite store is a file: sqlite:////absolute/path.db")
    return Path(url.database).absolute()


def existing(url: URL) -> Path:
    """The same, and it is there. Raises WrongDatabase."""
    path = path_of(url)
    if not path.is_file():
        raise WrongDatabase(f"{path} does not exist")
    return path


def check_ours(connection: Connection, name: str) -> int:
    """The version of its schema. Raises WrongDatabase."""
    present = set(inspect(connection).get_table_names())
    # Tables that every version has.
    if not {"object", "event_log", "counter", "compaction", "meta"} <= present:
        raise WrongDatabase(f"{name} holds no state of a cluster")
    version = connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar_one_or_none()
    if version is None or int(version) > SCHEMA_VERSION:
        raise WrongDatabase(f"{name} has schema {version}; this version of Cutaway knows up to {SCHEMA_VERSION}")
    return int(version)
