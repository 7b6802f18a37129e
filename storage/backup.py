"""Back-up, restore and check of a store, also one that an apiserver is using: `python -m storage.backup`.

    python -m storage.backup backup  URL FILE     a consistent copy of a live store, as one file
    python -m storage.backup restore FILE URL     into an empty store; revisions, history and the cluster's id stay
    python -m storage.backup verify  URL          read everything and check what must hold; exit code 1 if it doesn't

A back-up is a SQLite database of our own schema, whatever the source is: so a back-up of PostgreSQL restores to SQLite
and the other way round, which is also how a cluster moves from one to the other.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Table, create_engine, func, insert, inspect, make_url, select, text
from sqlalchemy.engine import URL, Engine

from storage.errors import Corrupt, StoreError, WrongDatabase
from storage.schema import APPLICATION_ID, SCHEMA_VERSION, counter, event_log, meta, metadata

# Rows read and written at a time: a few megabytes of objects.
ROWS_MAX = 1000


def backup(url: str, file: Path) -> int:
    """Copy the store at `url` to `file`, which must not exist; the revision that it holds.

    Readers and writers of the store go on. Raises StoreError; then there is no file.
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
                _check_ours(connection, str(source.database))
                _create_file(partial)
                with _engine_of(partial) as target, target.begin() as writing:
                    _copy_tables(connection, writing)
        revision = _revision_of(partial)
        partial.replace(file)
        return revision
    except sqlite3.Error as error:
        raise Corrupt(f"{url}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def restore(file: Path, url: str) -> int:
    """Put a back-up into the store at `url`, which must be empty; the revision that it holds. Raises StoreError."""
    if not file.is_file():
        raise WrongDatabase(f"{file} does not exist")
    revision = _revision_of(file)
    target = make_url(url)
    if target.get_backend_name() == "sqlite":
        path = _path_of(target)
        if path.exists() and path.stat().st_size:
            raise WrongDatabase(f"{path} is not empty: restore into a new store")
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            _copy_sqlite(file, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return revision
    with _engine_of(file) as source, source.connect() as reading, _writer(target) as engine, engine.begin() as writing:
        if set(inspect(writing).get_table_names()):
            raise WrongDatabase(f"{target.database} is not empty: restore into a new database")
        metadata.create_all(writing)
        _copy_tables(reading, writing)
    return revision


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


def _check_ours(connection: Connection, name: str) -> None:
    present = set(inspect(connection).get_table_names())
    if not set(metadata.tables) <= present:
        raise WrongDatabase(f"{name} holds no state of a cluster")
    version = connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar_one_or_none()
    if version is None or int(version) > SCHEMA_VERSION:
        raise WrongDatabase(f"{name} has schema {version}; this version of Cutaway knows up to {SCHEMA_VERSION}")


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
    commands: dict[str, Callable[..., int]] = {"backup": _backup, "restore": _restore, "verify": _verify}
    if not arguments or arguments[0] not in commands or len(arguments) != (2 if arguments[0] == "verify" else 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](*arguments[1:])
    except StoreError as error:
        print(error, file=sys.stderr)
    except Exception as error:
        # A driver's error, of a server that is not there or a password that is wrong: its first line says which.
        print(str(error).strip().splitlines()[0], file=sys.stderr)
    return 1


def _backup(url: str, file: str) -> int:
    print(f"revision {backup(url, Path(file).absolute())}")
    return 0


def _restore(file: str, url: str) -> int:
    print(f"revision {restore(Path(file).absolute(), url)}")
    return 0


def _verify(url: str) -> int:
    revision, problems = verify(url)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"revision {revision}: {'damaged' if problems else 'whole'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
