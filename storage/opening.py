"""Opening a store: which database, is it ours, is it whole, which schema it has."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
import uuid
from collections.abc import Callable

from sqlalchemy import Connection, insert, inspect, make_url, select, update
from sqlalchemy.engine import URL

from storage.compactor import RetentionPolicy
from storage.database import Database
from storage.errors import StoreError, WrongDatabase
from storage.schema import SCHEMA_VERSION, counter, meta, metadata
from storage.sql_store import SqlStore

CLOCK_SECONDS_MAX = 60.0
"""More than clocks of one cluster differ by."""

_log = logging.getLogger(__name__)


async def open_store(
    url: str,
    *,
    cluster_id: str | None = None,
    origin: str = "",
    retention: RetentionPolicy | None = None,
    clock: Callable[[], float] = time.time,
) -> SqlStore:
    """Open the store at `url`: "sqlite:////absolute/path.db" or "postgresql://user@host/database".

    A new database gets `cluster_id` (or one made up); an existing one must have it, if it is given. `origin` marks the
    events that this process writes; by default it is random. Without `retention` history is kept until `compact`.

    Raises WrongDatabase (another cluster's, another program's, a newer schema, a file that another process holds),
    Corrupt, ReadOnly, StorageFull, Unavailable.
    """
    origin = origin or f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
    database, found, revision, written = await asyncio.to_thread(_open, url, cluster_id)
    try:
        store = SqlStore(
            database,
            cluster_id=found,
            revision=revision,
            origin=origin,
            retention=retention or RetentionPolicy(),
            clock=clock,
        )
    except Exception as error:
        failure = database.translate(error) or error
        database.close()
        raise failure from error
    _compare_clocks(written, clock())
    store.start()
    return store


def _compare_clocks(written: float, now: float) -> None:
    """Tell of a clock that was set back: until it has caught up, events bear the time of the last one before."""
    if written - now > CLOCK_SECONDS_MAX:
        _log.warning("the clock is %.0f s behind the last write: set it; until then times stand still", written - now)


def _open(url: str, cluster_id: str | None) -> tuple[Database, str, int, float]:
    database = database_of(make_url(url))
    try:
        with database.writers.begin() as connection:
            database.lock_schema(connection)
            found = _prepare(connection, cluster_id)
            row = connection.execute(select(counter.c.revision, counter.c.time)).one()
            return database, found, int(row.revision), float(row.time)
    except StoreError:
        database.close()
        raise
    except Exception as error:
        failure = database.translate(error) or error
        database.close()
        raise failure from error


def database_of(url: URL) -> Database:
    """The database that a URL means, checked to be one that may be written to."""
    if url.get_backend_name() == "sqlite":
        from storage.sqlite import SqliteDatabase

        return SqliteDatabase(url)
    if url.get_backend_name() == "postgresql":
        from storage.postgres import PostgresDatabase

        return PostgresDatabase(url)
    raise WrongDatabase(f"{url.get_backend_name()} is not supported; use sqlite:////path or postgresql://")


def _prepare(connection: Connection, cluster_id: str | None) -> str:
    """Make the tables of an empty database, or check those of an existing one; its cluster's id."""
    inspector = inspect(connection)
    present = set(metadata.tables) & set(inspector.get_table_names())
    if not present:
        metadata.create_all(connection)
        found = cluster_id or str(uuid.uuid4())
        connection.execute(insert(counter).values(id=1, revision=0, time=0.0))
        values = [{"key": "cluster_id", "value": found}, {"key": "schema_version", "value": str(SCHEMA_VERSION)}]
        connection.execute(insert(meta), values)
        return found
    # An older schema may lack tables, but it has this one.
    if meta.name not in present or {column["name"] for column in inspector.get_columns(meta.name)} != {"key", "value"}:
        raise WrongDatabase(f"the database has tables of another program: {', '.join(sorted(present))}")
    stored = {row.key: row.value for row in connection.execute(select(meta))}
    if not {"schema_version", "cluster_id"} <= stored.keys():
        raise WrongDatabase("the database's table `meta` is another program's")
    version = int(stored["schema_version"])
    if version > SCHEMA_VERSION:
        raise WrongDatabase(f"the database has schema {version}; this version of Cutaway knows up to {SCHEMA_VERSION}")
    if cluster_id is not None and stored["cluster_id"] != cluster_id:
        raise WrongDatabase(f"the database belongs to cluster {stored['cluster_id']}, not to {cluster_id}")
    if version < SCHEMA_VERSION:
        from storage.migrations import upgrade  # alembic is slow to import, and rarely needed

        upgrade(connection, version)
        newest = update(meta).where(meta.c.key == "schema_version").values(value=str(SCHEMA_VERSION))
        connection.execute(newest)
    return str(stored["cluster_id"])
