"""Back-up, restore and check of a store, also one that an apiserver is using: `python -m storage.backup`.

    python -m storage.backup backup  URL FILE [REVISION]
                                                  a consistent copy of a live store, as one file; as of a retained
                                                  revision
    python -m storage.backup restore FILE URL [SEEN [AHEAD]]
                                                  into an empty store; history and the cluster's id stay, the revision
                                                  goes on far ahead of the back-up's
    python -m storage.backup revision URL         the newest revision of a store that may be damaged; 0 if unknown
    python -m storage.backup verify  URL          read everything and check what must hold; exit code 1 if it doesn't

A back-up is a SQLite database of our own schema, whatever the source is: so a back-up of PostgreSQL restores to SQLite
and the other way round, which is also how a cluster moves from one to the other.

The revision never goes back. After the back-up was made the cluster went on, and its clients hold resourceVersions that
the restored state knows nothing of; if it gave out the same numbers again, such a client's watch would go on as if
nothing had happened, and its cache would be wrong for ever. So a restored store goes on at

    max(revision of the back-up, newest revision SEEN) + AHEAD + REVISIONS_PER_SECOND * age of the back-up in seconds

The first margin is for clocks that differ, the second exceeds whatever a cluster can have written since, also in an
earlier life that was restored from the same file. Everything between is Compacted (`schema.gap`): a watch from there is
told 410 and reads the state again. What the back-up holds stays readable.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Table, create_engine, func, insert, inspect, make_url, select, text, update
from sqlalchemy.engine import URL, Engine

from storage.errors import Corrupt, StoreError, WrongDatabase
from storage.rewind import rewind
from storage.schema import APPLICATION_ID, SCHEMA_VERSION, counter, event_log, gap, meta, metadata

# Rows read and written at a time: a few megabytes of objects.
ROWS_MAX = 1000

AHEAD = 10_000_000
"""How far a restored store goes on ahead, whatever its age."""
REVISIONS_PER_SECOND = 50_000
"""More than any store of ours writes: SQLite and Postgres reach half of it on the machines that we know."""


def backup(url: str, file: Path, *, at_revision: int = 0) -> int:
    """Copy the store at `url`, now or at a retained revision, to `file`, which must not exist; the revision it has.

    Readers and writers of the store go on. Raises StoreError (also Compacted, FutureRevision); then there is no file.
    """
    if file.exists():
        raise WrongDatabase(f"{file} exists already")
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    # Created 0600: it holds every Secret.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        source = make_url(url)
        if source.get_backend_name() == "sqlite":
            _copy_sqlite(_existing(source), partial)
        else:
            with _reader(source) as engine, engine.connect() as connection:
                version = _check_ours(connection, str(source.database))
                if version < SCHEMA_VERSION:
                    raise WrongDatabase(
                        f"{source.database} has schema {version}: Cutaway brings it to {SCHEMA_VERSION} "
                        "when it is started on it, and can back it up then"
                    )
                _create_file(partial)
                with _engine_of(partial) as target, target.begin() as writing:
                    _copy_tables(connection, writing)
        if at_revision:
            with _engine_of(partial) as engine, engine.begin() as connection:
                _migrate(connection)
                rewind(connection, at_revision)
        revision = _revision_of(partial)
        _flush(partial)
        partial.replace(file)
        return revision
    except sqlite3.Error as error:
        raise Corrupt(f"{url}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def restore(
    file: Path, url: str, *, ahead: int = AHEAD, seen: int = 0, clock: Callable[[], float] = time.time
) -> tuple[int, int]:
    """Put a back-up into the store at `url`, which must be empty.

    The revision that the back-up holds, and the one at which the store goes on: beyond `seen` (the newest that is known
    to have been given out) and by at least `ahead`. Raises StoreError; then nothing has changed.
    """
    if not file.is_file():
        raise WrongDatabase(f"{file} does not exist")
    if ahead < 1:
        raise WrongDatabase(f"a restored store must go on ahead of its back-up by at least 1, not by {ahead}")
    _revision_of(file)
    target = make_url(url)
    path = _path_of(target) if target.get_backend_name() == "sqlite" else None
    if path is not None and path.exists() and path.stat().st_size:
        raise WrongDatabase(f"{path} is not empty: restore into a new store")
    # All changes happen to a copy: beside the target, so that it gets there in one step, or in a folder of its own.
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=path.parent if path is not None else None) as place:
        partial = Path(place) / "state.db"
        _copy_sqlite(file, partial)
        with _engine_of(partial) as engine, engine.begin() as connection:
            _migrate(connection)
            revisions = _go_ahead(connection, ahead, seen, clock())
        if path is not None:
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
            return revisions
        with _engine_of(partial) as source, source.connect() as reading, _writer(target) as engine:
            with engine.begin() as writing:
                if set(inspect(writing).get_table_names()):
                    raise WrongDatabase(f"{target.database} is not empty: restore into a new database")
                metadata.create_all(writing)
                _copy_tables(reading, writing)
            # Its rows came at once, and the server learns of that only by and by.
            with engine.begin() as writing:
                writing.exec_driver_sql("ANALYZE")
        return revisions


def _migrate(connection: Connection) -> None:
    """Bring a copy of an older version's state to the present schema."""
    version = int(connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar_one())
    if version < SCHEMA_VERSION:
        from storage.migrations import upgrade  # alembic is slow to import, and rarely needed

        upgrade(connection, version)
        connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(SCHEMA_VERSION)))


def _go_ahead(connection: Connection, ahead: int, seen: int, now: float) -> tuple[int, int]:
    """Move the counter to where nobody has been, and say that what lies between is gone."""
    held, written = connection.execute(select(counter.c.revision, counter.c.time)).one()
    age = max(0.0, now - written) if written else 0.0
    until = max(held, seen) + ahead + int(age * REVISIONS_PER_SECOND)
    connection.execute(update(counter).values(revision=until))
    connection.execute(insert(gap).values(after=held, until=until, time=now))
    # What was compacted or swept up to the end stays so; the rest of the log is walked when its turn comes.
    return int(held), until


def newest_seen(url: str) -> int:
    """The revision of the store at `url`, which may be damaged or of any version; 0 if it can't be told."""
    source = make_url(url)
    try:
        with _reader(source) as engine, engine.connect() as connection:
            return int(connection.execute(select(counter.c.revision)).scalar_one())
    except Exception:
        # It is asked for because it is about to be replaced, perhaps for the very reason that it can't be read.
        return 0


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(url: str) -> tuple[int, list[str]]:
    """The store's revision and everything that is wrong with it. Raises StoreError if it can't be read at all."""
    source = make_url(url)
    problems = []
    if source.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(f"file:{_existing(source)}?mode=ro", uri=True)) as connection:
            problems += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    with _reader(source) as engine, engine.connect() as connection:
        _check_ours(connection, str(source.database))
        revision = int(connection.execute(select(counter.c.revision)).scalar_one())
        newest = connection.execute(select(func.max(event_log.c.revision))).scalar() or 0
        if newest > revision:
            problems.append(f"the log reaches revision {newest}, the counter {revision}")
        for what, condition in _CHECKS.items():
            count = connection.execute(text(condition)).scalar_one()
            if count:
                problems.append(f"{count} {what}")
    return revision, problems


_CHECKS = {
    "heads without a log entry of the same key": """
        SELECT count(*) FROM object o LEFT JOIN event_log l ON l.revision = o.revision
        WHERE l.revision IS NULL OR l.resource <> o.resource OR l.namespace <> o.namespace OR l.name <> o.name""",
    "heads that are older than the newest log entry of their key": """
        SELECT count(*) FROM object o WHERE EXISTS (SELECT 1 FROM event_log l
        WHERE l.resource = o.resource AND l.namespace = o.namespace AND l.name = o.name AND l.revision > o.revision)""",
    "heads that say another thing about deletion than the log": """
        SELECT count(*) FROM object o JOIN event_log l ON l.revision = o.revision
        WHERE (l.type = 2 AND NOT o.deleted) OR (l.type = 1 AND o.deleted)""",
    "log entries that do not come after the one that they replaced": """
        SELECT count(*) FROM event_log WHERE previous_revision >= revision OR create_revision > revision""",
}


# --- one database ---------------------------------------------------------------------------------------------------


class _Opened:
    """An engine that is disposed of at the end of a `with`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Engine:
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()


def _reader(url: URL) -> _Opened:
    """Transactions that see one snapshot and write nothing."""
    if url.get_backend_name() == "sqlite":
        path = _existing(url)
        return _Opened(create_engine("sqlite://", creator=lambda: sqlite3.connect(f"file:{path}?mode=ro", uri=True)))
    return _Opened(
        create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    )


def _writer(url: URL) -> _Opened:
    return _Opened(create_engine(url.set(drivername="postgresql+psycopg")))


def _engine_of(path: Path) -> _Opened:
    return _Opened(create_engine(URL.create("sqlite", database=str(path))))


def _path_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise WrongDatabase("a SQLite store is a file: sqlite:////absolute/path.db")
    return Path(url.database).absolute()


def _existing(url: URL) -> Path:
    path = _path_of(url)
    if not path.is_file():
        raise WrongDatabase(f"{path} does not exist")
    return path


def _check_ours(connection: Connection, name: str) -> int:
    """The version of its schema. Raises WrongDatabase."""
    present = set(inspect(connection).get_table_names())
    # Tables that every version has.
    if not {"object", "event_log", "counter", "compaction", "meta"} <= present:
        raise WrongDatabase(f"{name} holds no state of a cluster")
    version = connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar_one_or_none()
    if version is None or int(version) > SCHEMA_VERSION:
        raise WrongDatabase(f"{name} has schema {version}; this version of Cutaway knows up to {SCHEMA_VERSION}")
    return int(version)


# --- copying --------------------------------------------------------------------------------------------------------


def _create_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    with _engine_of(path) as engine:
        metadata.create_all(engine)


def _copy_sqlite(source: Path, target: Path) -> None:
    """All pages as of one moment. In one step: the source's write-ahead log lets its writer go on meanwhile."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        target.chmod(0o600)
        reading.backup(writing, pages=-1)
        # One file, without a log beside it.
        writing.execute("PRAGMA journal_mode=DELETE")


def _copy_tables(reading: Connection, writing: Connection) -> None:
    for table in metadata.sorted_tables:
        _copy_table(table, reading, writing)


def _copy_table(table: Table, reading: Connection, writing: Connection) -> None:
    streamed = reading.execution_options(stream_results=True, yield_per=ROWS_MAX)
    for rows in streamed.execute(select(table)).mappings().partitions(ROWS_MAX):
        writing.execute(insert(table), [dict(row) for row in rows])


def _revision_of(file: Path) -> int:
    with _reader(URL.create("sqlite", database=str(file))) as engine, engine.connect() as connection:
        _check_ours(connection, str(file))
        missing = connection.execute(text(_CHECKS["heads without a log entry of the same key"])).scalar_one()
        if missing:
            raise Corrupt(f"{file} is damaged: {missing} objects have lost their content")
        return int(connection.execute(select(counter.c.revision)).scalar_one())


# --- command line ---------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Exit code: 0 done, 1 refused or wrong, 2 misused. What went wrong is one line on stderr."""
    commands: dict[str, tuple[Callable[..., int], range]] = {
        "backup": (_backup, range(2, 4)),
        "restore": (_restore, range(2, 5)),
        "verify": (_verify, range(1, 2)),
        "revision": (_newest, range(1, 2)),
    }
    if not arguments or arguments[0] not in commands or len(arguments) - 1 not in commands[arguments[0]][1]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]][0](*arguments[1:])
    except StoreError as error:
        print(error, file=sys.stderr)
    except Exception as error:
        # A driver's error, of a server that is not there or a password that is wrong: its first line says which.
        print(str(error).strip().splitlines()[0], file=sys.stderr)
    return 1


def _backup(url: str, file: str, at_revision: str = "0") -> int:
    print(f"revision {backup(url, Path(file).absolute(), at_revision=int(at_revision))}")
    return 0


def _restore(file: str, url: str, seen: str = "0", ahead: str = str(AHEAD)) -> int:
    held, until = restore(Path(file).absolute(), url, ahead=int(ahead), seen=int(seen))
    print(f"revision {held}, going on at {until}")
    return 0


def _newest(url: str) -> int:
    print(newest_seen(url))
    return 0


def _verify(url: str) -> int:
    revision, problems = verify(url)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"revision {revision}: {'damaged' if problems else 'whole'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
