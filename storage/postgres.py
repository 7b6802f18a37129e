"""PostgreSQL 14 and later, or what speaks its protocol: several processes on one database.

Every writing transaction locks the counter row first, so commits of all processes are in one order, and what a
transaction reads after that is what the one before it left. Each process hears of the others' commits by NOTIFY (see
`tail.py`).

A store uses at most WRITERS_MAX + READERS_MAX + 2 connections. TLS and passwords are libpq's:
`?sslmode=verify-full&sslrootcert=…` and `?passfile=…` in the URL. So are several addresses of one cluster of servers:
`?host=a,b&port=5432,5432&target_session_attrs=read-write` leads to the one that is the primary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL

from storage.database import Counter, LogTail
from storage.errors import Corrupt, ReadOnly, StorageFull, StoreError, Unavailable, WrongDatabase
from storage.judge import Group, Head
from storage.schema import APPLICATION_ID
from storage.store import Key
from storage.tail import Tail
from storage.watch import Hub, ReadLog

WRITERS_MAX = 2
"""The writing session, and one for opening and compaction."""
READERS_MAX = 4
CHANNEL = "cutaway_log"
"""NOTIFY carries "<revision> <origin>" of the last commit of a group."""

_SERVER_VERSION_MIN = 140000
_CONNECT_SECONDS = 5
# A frozen or vanished writer must not hold the counter's lock for longer than this: the server ends its session
# instead.
_STALLED_SECONDS = 5
_STATEMENT_SECONDS = 30
# A peer that does not answer is given up after about this time, on either path: keepalives when idle, unacknowledged
# data when not.
_SILENT_SECONDS = 10


class PostgresDatabase:
    """The database at `url`. Raises WrongDatabase, Unavailable."""

    one_writer = False

    def __init__(self, url: URL) -> None:
        self.url = url.set(drivername="postgresql+psycopg")
        self.name = f"{url.host or url.query.get('host', 'local socket')}/{url.database}"
        self.writers = _engine(self.url, WRITERS_MAX, writes=True)
        self.readers = _engine(self.url, READERS_MAX, writes=False)
        try:
            with self.writers.connect() as connection:
                version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
            if version < _SERVER_VERSION_MIN:
                needed = _SERVER_VERSION_MIN // 10000
                raise WrongDatabase(f"{self.name} is PostgreSQL {version // 10000}; {needed} or later is needed")
        except StoreError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self.translate(error) or error from error

    def open_session(self) -> PostgresSession:
        return PostgresSession(self.writers)

    def lock_schema(self, connection: Connection) -> None:
        # Two processes that open an empty database at once must not both make its tables.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": APPLICATION_ID})

    def tail(self, hub: Hub, read: ReadLog, origin: str) -> LogTail | None:
        """Listens for the commits of other processes."""
        return Tail(self.listen, self._connect, hub, read, origin)

    def begin_erasing(self, connection: Connection) -> None:
        """Nothing to do: what its pages and its own log keep for a while is the server's to protect."""

    def end_erasing(self, connection: Connection) -> None:
        """Nothing to do."""

    def translate(self, error: Exception) -> StoreError | None:
        found = translate(error, self.name)
        file = self.url.query.get("passfile")
        if file and "no password supplied" in str(found):
            # The driver's library says no more: why it left the file aside it prints, at best.
            return Unavailable(
                f"{self.name}: no password for {self.url.username or 'us'} in {file} (host:port:database:user:password "
                "a line; only its owner may read it: 0600)"
            )
        return found

    def close(self) -> None:
        self.readers.dispose()
        self.writers.dispose()

    async def listen(self) -> psycopg.AsyncConnection[Any]:
        """A connection of its own that listens for other processes' commits."""
        connection = await self._connect()
        await connection.execute(f"LISTEN {CHANNEL}")
        return connection

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        args, kwargs = self.writers.dialect.create_connect_args(self.url)
        return await psycopg.AsyncConnection.connect(*args, **{**_timeouts(), **kwargs}, autocommit=True)


class PostgresSession:
    """The writing connection: three round trips a group (lock, read, write) and the commit.

    Its statements take arrays, whose length is the group's, and go to the driver's cursor on SQLAlchemy's connection:
    prepared once, with bytes in binary. Core would render a new statement for every size of a group.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._driver: psycopg.Connection[Any] | None = None

    def begin(self) -> Counter:
        try:
            return self._lock_counter()
        except psycopg.Error:
            # The server was restarted, or cut the idle connection. Nothing has been sent but this, so a new one may try
            # again.
            if self._driver is None or not self._driver.closed:
                raise
            self._drop()
            return self._lock_counter()

    def heads(self, keys: Iterable[Key]) -> dict[Key, Head]:
        wanted = list(keys)
        columns = [list(column) for column in zip(*wanted, strict=True)]
        rows = self._cursor().execute(_SELECT_HEADS, columns, prepare=True, binary=True).fetchall()
        return {Key(row[0], row[1], row[2]): Head(row[3], row[4], row[5], row[6], row[7]) for row in rows}

    def save(self, group: Group, time: float) -> None:
        log: list[Any] = [list(column) for column in zip(*group.log, strict=True)]
        heads = [(*key, head[0], head[1], head[2], head[3]) for key, head in group.changed.items()]
        changed: list[Any] = [list(column) for column in zip(*heads, strict=True)]
        notice = f"{group.revision} {group.log[-1].origin}"
        self._cursor().execute(_SAVE, [*log, *changed, group.revision, time, CHANNEL, notice], prepare=True)

    def commit(self) -> None:
        assert self._driver is not None
        self._driver.commit()

    def rollback(self) -> None:
        if self._driver is None:
            return
        try:
            self._driver.rollback()
        except psycopg.Error:
            self._drop()

    def recover(self, error: Exception) -> None:
        self.rollback()

    def connection(self) -> Connection:
        raise AssertionError("only SQLite needs the writing connection for anything else")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _cursor(self) -> psycopg.Cursor[Any]:
        assert self._driver is not None
        return self._driver.cursor()

    def _lock_counter(self) -> Counter:
        if self._driver is None:
            self._connection = self._engine.connect()
            self._driver = cast("psycopg.Connection[Any]", self._connection.connection.driver_connection)
        row = self._cursor().execute("SELECT revision, time FROM counter FOR UPDATE", prepare=True).fetchone()
        assert row is not None
        return Counter(*row)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
        self._connection = self._driver = None


_SELECT_HEADS = """
SELECT o.resource, o.namespace, o.name, o.revision, o.create_revision, o.epoch, o.deleted, l.value
FROM unnest(%s::text[], %s::text[], %s::text[]) AS k (resource, namespace, name)
JOIN object o ON (o.resource, o.namespace, o.name) = (k.resource, k.namespace, k.name)
JOIN event_log l ON l.revision = o.revision"""

# One statement, so one round trip; its parts see the state before it, and none of them reads what another writes.
_SAVE = """
WITH log AS (
    INSERT INTO event_log
    (revision, type, resource, namespace, name, create_revision, previous_revision, epoch, time, origin, value,
     author)
    SELECT * FROM unnest(%b::bigint[], %b::smallint[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[],
                         %b::bigint[], %b::float8[], %b::text[], %b::bytea[], %b::text[])
), heads AS (
    INSERT INTO object (resource, namespace, name, revision, create_revision, epoch, deleted)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::boolean[])
    ON CONFLICT (resource, namespace, name) DO UPDATE
    SET revision = excluded.revision, create_revision = excluded.create_revision,
        epoch = excluded.epoch, deleted = excluded.deleted
), counted AS (
    UPDATE counter SET revision = %s, time = %s
)
SELECT pg_notify(%s, %s)"""


def _engine(url: URL, connections: int, *, writes: bool) -> Engine:
    engine = create_engine(
        url,
        # Readers see one snapshot for a whole transaction. The writer must not: what it reads after it has got the lock
        # has to be what the transaction before it wrote.
        isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
        pool_size=connections,
        max_overflow=0,
        connect_args=_timeouts(),
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: psycopg.Connection[Any], _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("; ".join(f"SET {setting}" for setting in _settings(writes=writes)))
        connection.commit()

    return engine


def _timeouts() -> dict[str, object]:
    return {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": _SILENT_SECONDS // 2,
        "keepalives_interval": 1,
        "keepalives_count": _SILENT_SECONDS // 2,
        "tcp_user_timeout": _SILENT_SECONDS * 1000,
        "application_name": "cutaway",
    }


def _settings(*, writes: bool) -> list[str]:
    settings = [f"statement_timeout = '{_STATEMENT_SECONDS}s'", "jit = off"]
    if not writes:
        # Planned anew each time: a plan that was made while the log was short reads all of it once it is long.
        return [*settings, "default_transaction_read_only = on", "plan_cache_mode = force_custom_plan"]
    return [
        *settings,
        "synchronous_commit = on",
        f"lock_timeout = '{_STALLED_SECONDS}s'",
        f"idle_in_transaction_session_timeout = '{_STALLED_SECONDS}s'",
        # A few keys against large tables: always by index, also while the statistics still say that the tables are
        # small.
        "enable_seqscan = off",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
    ]


def translate(error: Exception, name: str) -> StoreError | None:
    """The store's error for an error of PostgreSQL, also one that SQLAlchemy has wrapped."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        return None
    state, message = cause.sqlstate or "", str(cause).strip().split("\n")[0]
    if state == "53100":
        return StorageFull(f"no space left for {name}: {message}")
    if state == "25006":
        return ReadOnly(f"{name} can't be written: {message}")
    if state in ("XX001", "XX002"):
        return Corrupt(f"{name} is damaged: {message}")
    if state == "3D000" or ('database "' in message and "does not exist" in message):
        return WrongDatabase(f"{name}: {message}")
    return Unavailable(f"{name}: {message}")
