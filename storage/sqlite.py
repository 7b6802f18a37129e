"""SQLite: one file, one process, one writing connection.

WAL with `synchronous=FULL`: a commit returns after its frames are on the disk, and readers are never in its way. A lock
on `<file>.lock` keeps a second process out for as long as this one lives: two apiservers on one file would serve stale
caches.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool, QueuePool

from storage.checkpoint import LOG_BYTES_MAX, Checkpointer
from storage.database import Counter, LogTail
from storage.errors import Corrupt, ReadOnly, StorageFull, StoreError, Unavailable, WrongDatabase
from storage.file_lock import FileLock
from storage.judge import Group, Head, LogRow
from storage.schema import APPLICATION_ID
from storage.store import Key
from storage.watch import Hub, ReadLog

READERS_MAX = 4
_BUSY_SECONDS = 5.0
_CHECK_SECONDS = 1.0
# Each page costs a write into the log and one back into the file. Our rows are small or a few kilobytes; 8 KiB keeps
# several a page.
_PAGE_BYTES = 8192
# SQLite's own checkpoint, within a commit, is only the backstop for ours: see checkpoint.py.
_LOG_PAGES_MAX = 8 * LOG_BYTES_MAX // _PAGE_BYTES
_CACHE_KIBIBYTES, _READER_CACHE_KIBIBYTES = 16 * 1024, 2 * 1024
"""Pages in memory, for each connection. The writer's hold the ends of the tables; a reader walks along the log once."""

_Row = TypeVar("_Row")


class SqliteDatabase:
    """The file at `url.database`, created if it does not exist. Raises WrongDatabase, Corrupt, ReadOnly, Unavailable,
    StorageFull.
    """

    one_writer = True

    def __init__(self, url: URL) -> None:
        if not url.database or url.database == ":memory:":
            raise WrongDatabase("a SQLite store needs a file: sqlite:////absolute/path.db")
        self.path = Path(url.database).absolute()
        self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        self.writers = _engine(url, 1, writes=True)
        self.readers = _engine(url, READERS_MAX, writes=False)
        try:
            self._check_file()
        except sqlite3.Error as error:
            self.close()
            raise translate(error, self.path) or error from error
        except BaseException:
            self.close()
            raise

    def open_session(self) -> SqliteSession:
        return SqliteSession(self.writers)

    def lock_schema(self, connection: Connection) -> None:
        """Nothing to do: no other process has the file open, and the transaction holds its write lock."""

    def tail(self, hub: Hub, read: ReadLog, origin: str) -> LogTail | None:
        """None: this process is the only one."""
        return None

    def begin_erasing(self, connection: Connection) -> None:
        cast(sqlite3.Connection, connection.connection.driver_connection).execute("PRAGMA secure_delete=ON").fetchall()

    def end_erasing(self, connection: Connection) -> None:
        driver = cast(sqlite3.Connection, connection.connection.driver_connection)
        # The write-ahead log still has the pages as they were: it begins anew, empty, unless a reader needs it now.
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        driver.execute("PRAGMA secure_delete=OFF").fetchall()

    def translate(self, error: Exception) -> StoreError | None:
        return translate(error, self.path)

    def close(self) -> None:
        self.readers.dispose()
        self.writers.dispose()
        self._lock.release()

    def _check_file(self) -> None:
        """Refuse what is not ours before anything is written to it."""
        # The driver's connection, for a journal mode can't be changed in a transaction, which SQLAlchemy's would begin.
        connection = self.writers.raw_connection()
        try:
            cursor = connection.cursor()
            mark = cursor.execute("PRAGMA application_id").fetchone()[0]
            tables = cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if mark != APPLICATION_ID and (mark or tables):
                raise WrongDatabase(f"{self.path} is a SQLite file of another program")
            if tables:
                _check_pages(cast(sqlite3.Connection, connection.driver_connection), self.path)
            cursor.execute("PRAGMA journal_mode=WAL")
            if mark != APPLICATION_ID:
                cursor.execute(f"PRAGMA application_id={APPLICATION_ID}")
        finally:
            connection.close()


class SqliteSession:
    """The writing connection.

    The statements of the hot path go to the driver's cursor, on the connection that SQLAlchemy set up and owns: to
    build and bind a Core statement would cost several times what SQLite needs to execute it. Each takes many rows,
    because the driver lets go of the interpreter's lock for every step and this thread has to wait for the busy loop to
    get it back: with a statement for each row, most of a group's time would be waiting.
    """

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.connect()
        self._driver = cast(sqlite3.Connection, self._connection.connection.driver_connection)
        self._cursor = self._driver.cursor()
        self._checkpointer = Checkpointer(engine)
        self._size = 0
        # As the last commit left it; nobody else writes. None: to be read.
        self._counter: Counter | None = None
        self._next = Counter(0, 0.0)
        self._changes = self._driver.total_changes

    def begin(self) -> Counter:
        # What compaction has removed since the last commit is in the write-ahead log too: about a page a row. Were it
        # not counted, some commit would have to move it all.
        removed = self._driver.total_changes - self._changes
        if removed:
            self._checkpointer.written(removed * _PAGE_BYTES)
        self._checkpointer.advance(self._cursor)
        # IMMEDIATE takes the write lock now, so that nothing read in this transaction can be outdated when it writes.
        self._cursor.execute("BEGIN IMMEDIATE")
        if self._counter is None:
            self._counter = Counter(*self._cursor.execute("SELECT revision, time FROM counter").fetchone())
        return self._counter

    def heads(self, keys: Iterable[Key]) -> dict[Key, Head]:
        found: dict[Key, Head] = {}
        for part in _parts(list(keys)):
            values = [value for key in part for value in key]
            for row in self._cursor.execute(_for_rows(_SELECT_HEADS, 3, len(part)), values).fetchall():
                found[Key(row[0], row[1], row[2])] = Head(row[3], row[4], row[5], bool(row[6]), row[7])
        return found

    def save(self, group: Group, time: float) -> None:
        self._next = Counter(group.revision, time)
        self._size = sum(len(row.value) for row in group.log) + _PAGE_BYTES * (len(group.changed) + 4)
        execute = self._cursor.execute
        for rows in _parts(group.log):
            execute(_for_rows(_INSERT_LOG, len(LogRow._fields), len(rows)), [value for row in rows for value in row])
        for heads in _parts(list(group.changed.items())):
            execute(
                _for_rows(_UPSERT_HEAD, 7, len(heads)), [value for key, head in heads for value in (*key, *head[:4])]
            )
        execute("UPDATE counter SET revision = ?, time = ?", self._next)

    def commit(self) -> None:
        self._cursor.execute("COMMIT")
        self._counter = self._next
        self._checkpointer.written(self._size)
        self._changes = self._driver.total_changes

    def rollback(self) -> None:
        self._counter = None
        # SQLite may have rolled back by itself already, as it does when the disk is full.
        with contextlib.suppress(sqlite3.Error):
            self._cursor.execute("ROLLBACK")
        self._changes = self._driver.total_changes

    def recover(self, error: Exception) -> None:
        self.rollback()
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"):
            # What has been moved from the write-ahead log into the file makes room there. It may need some space
            # itself.
            with contextlib.suppress(sqlite3.Error):
                self._cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def connection(self) -> Connection:
        self._counter = None
        return self._connection

    def close(self) -> None:
        self._checkpointer.close()
        self._connection.close()


_SELECT_HEADS = """
WITH wanted (resource, namespace, name) AS (VALUES {rows})
SELECT o.resource, o.namespace, o.name, o.revision, o.create_revision, o.epoch, o.deleted, l.value FROM wanted w
CROSS JOIN object o ON o.resource = w.resource AND o.namespace = w.namespace AND o.name = w.name
CROSS JOIN event_log l ON l.revision = o.revision"""

_INSERT_LOG = """
INSERT INTO event_log
(revision, type, resource, namespace, name, create_revision, previous_revision, epoch, time, origin, value, author)
VALUES {rows}"""

_UPSERT_HEAD = """
INSERT INTO object (resource, namespace, name, revision, create_revision, epoch, deleted) VALUES {rows}
ON CONFLICT (resource, namespace, name) DO UPDATE
SET revision = excluded.revision, create_revision = excluded.create_revision, epoch = excluded.epoch, deleted =
excluded.deleted"""

_ROWS_OF_MANY = (64, 32, 16)
"""Rows of one statement; what is left, less than the last, is one more. The sizes are few, so that the driver keeps all
statements prepared (128), and a usual group is one of each kind: between two of them this thread waits for the
interpreter's lock."""


def _parts(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows in pieces for one statement each."""
    start = 0
    for size in _ROWS_OF_MANY:
        while start + size <= len(rows):
            yield rows[start : start + size]
            start += size
    if start < len(rows):
        yield rows[start:]


@functools.lru_cache(maxsize=64)
def _for_rows(statement: str, columns: int, count: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.format(rows=", ".join([row] * count))


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage for at most _CHECK_SECONDS: a start must not take longer because the log is long. `verify` looks
    at all.
    """
    deadline = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Corrupt(f"{path} is damaged: {found.strip()}")
        counted, logged = connection.execute(
            "SELECT revision, (SELECT max(revision) FROM event_log) FROM counter"
        ).fetchone()
        if logged is not None and logged > counted:
            raise Corrupt(f"{path} is damaged: the log ends at revision {logged} and the counter is at {counted}")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
    finally:
        connection.set_progress_handler(None, 0)


def _engine(url: URL, connections: int, *, writes: bool) -> Engine:
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        # The driver opens no transactions of its own (isolation_level None); ours begin when we say so, see _begin.
        connect_args={"isolation_level": None, "timeout": _BUSY_SECONDS, "check_same_thread": False},
        **(
            {"poolclass": NullPool} if writes else {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0}
        ),
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in _pragmas(writes=writes):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _pragmas(*, writes: bool) -> list[str]:
    cache = _CACHE_KIBIBYTES if writes else _READER_CACHE_KIBIBYTES
    pragmas = [f"cache_size=-{cache}", "temp_store=MEMORY", "trusted_schema=OFF"]
    if writes:
        return [f"page_size={_PAGE_BYTES}", "synchronous=FULL", f"wal_autocheckpoint={_LOG_PAGES_MAX}", *pragmas]
    return ["query_only=ON", *pragmas]


def translate(error: Exception, path: Path) -> StoreError | None:
    """The store's error for an error of SQLite, also one that SQLAlchemy has wrapped."""
    cause: Any = getattr(error, "orig", None) or error
    if not isinstance(cause, sqlite3.Error):
        return None
    name = getattr(cause, "sqlite_errorname", "")
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
        return StorageFull(f"no space left for {path}")
    if name.startswith("SQLITE_READONLY"):
        return ReadOnly(f"{path} can't be written ({name})")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Corrupt(f"{path} is damaged or not a database: {cause}")
    return Unavailable(f"{path}: {cause} ({name or type(cause).__name__})")
