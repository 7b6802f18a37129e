"""Back-up, restore and check of a store, also one that an apiserver is using: `python -m storage.backup`.

    python -m storage.backup backup  URL FILE [REVISION]
                                                  a consistent copy of a live store, as one file; as of a retained
                                                  revision
    python -m storage.backup restore FILE URL [SEEN [AHEAD]]
                                                  into an empty store; history and the cluster's id stay, the revision
                                                  goes on far ahead of the back-up's
    python -m storage.backup revision URL         the newest revision of a store that may be damaged; 0 if unknown
    python -m storage.backup verify  URL          read everything and check what must hold; exit code 1 if it doesn't

With --progress before the command it says on stderr what it is doing, each line begun with "... ".

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

from sqlalchemy import Connection, Table, insert, inspect, make_url, select, update

from storage import sqlite
from storage.errors import StoreError, WrongDatabase
from storage.rewind import rewind
from storage.schema import APPLICATION_ID, SCHEMA_VERSION, counter, gap, meta, metadata
from storage.snapshot import changed_file, check_ours, existing, open_read_only, path_of, reader, server
from storage.verify import Say, newest_seen, revision_of, silent, verify

# Rows read and written at a time: a few megabytes of objects.
ROWS_MAX = 1000
# Pages copied at a time.
PAGES_MAX = 2000

AHEAD = 10_000_000
"""How far a restored store goes on ahead, whatever its age."""
REVISIONS_PER_SECOND = 50_000
"""More than any store of ours writes: SQLite and Postgres reach half of it on the machines that we know."""
PROGRESS = "... "
"""How a line on stderr begins that says what is being done, with --progress."""


def backup(url: str, file: Path, *, at_revision: int = 0, say: Say = silent) -> int:
    """Copy the store at `url`, now or at a retained revision, to `file`, which must not exist; the revision it has.

    Readers and writers of the store go on. Raises StoreError (also Compacted, FutureRevision); then there is no file.
    """
    if file.exists():
        raise WrongDatabase(f"{file} exists already")
    if not file.parent.is_dir():
        raise WrongDatabase(f"there is no folder {file.parent}")
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    # Created 0600: it holds every Secret.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        source = make_url(url)
        if source.get_backend_name() == "sqlite":
            _copy_sqlite(existing(source), partial, say)
        else:
            with reader(source) as reading:
                version = check_ours(reading, str(source.database))
                if version < SCHEMA_VERSION:
                    raise WrongDatabase(
                        f"{source.database} has schema {version}: Cutaway brings it to {SCHEMA_VERSION} "
                        "when it is started on it, and can back it up then"
                    )
                _create_file(partial)
                with changed_file(partial) as writing:
                    _copy_tables(reading, writing, say)
        if at_revision:
            say(f"going back to revision {at_revision}")
            with changed_file(partial) as connection:
                _migrate(connection)
                rewind(connection, at_revision)
        say("checking the copy")
        revision = revision_of(partial)
        _flush(partial)
        partial.replace(file)
        return revision
    finally:
        partial.unlink(missing_ok=True)


def restore(
    file: Path,
    url: str,
    *,
    ahead: int = AHEAD,
    seen: int = 0,
    clock: Callable[[], float] = time.time,
    say: Say = silent,
) -> tuple[int, int]:
    """Put a back-up into the store at `url`, which must be empty.

    The revision that the back-up holds, and the one at which the store goes on: beyond `seen` (the newest that is known
    to have been given out) and by at least `ahead`. Raises StoreError; then nothing has changed.
    """
    if not file.is_file():
        raise WrongDatabase(f"{file} does not exist")
    if ahead < 1:
        raise WrongDatabase(f"a restored store must go on ahead of its back-up by at least 1, not by {ahead}")
    say("checking the back-up")
    revision_of(file)
    target = make_url(url)
    path = path_of(target) if target.get_backend_name() == "sqlite" else None
    if path is not None and path.exists() and path.stat().st_size:
        raise WrongDatabase(f"{path} is not empty: restore into a new store")
    # All changes happen to a copy: beside the target, so that it gets there in one step, or in a folder of its own.
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=path.parent if path is not None else None) as place:
        partial = Path(place) / "state.db"
        _copy_sqlite(file, partial, say)
        with changed_file(partial) as connection:
            _migrate(connection)
            revisions = _go_ahead(connection, ahead, seen, clock())
        if path is not None:
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
            return revisions
        with reader(make_url(f"sqlite:///{partial}")) as reading, server(target) as engine:
            with engine.begin() as writing:
                if set(inspect(writing).get_table_names()):
                    raise WrongDatabase(f"{target.database} is not empty: restore into a new database")
                metadata.create_all(writing)
                _copy_tables(reading, writing, say)
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


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- copying --------------------------------------------------------------------------------------------------------


def _create_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    with changed_file(path) as connection:
        metadata.create_all(connection)


def _copy_sqlite(source: Path, target: Path, say: Say) -> None:
    """All pages as of one moment; the source's write-ahead log lets its writer go on meanwhile."""

    def tell(_status: int, remaining: int, total: int) -> None:
        say(f"copying: {(total - remaining) * 100 // max(total, 1)} %")

    try:
        with closing(open_read_only(source)) as reading, closing(sqlite3.connect(target)) as writing:
            target.chmod(0o600)
            # Without a transaction around them, each step would see another moment, and the copy begin anew each time.
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchall()
            reading.backup(writing, pages=PAGES_MAX, progress=tell)
            # One file, without a log beside it.
            writing.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise sqlite.translate(error, target if error.sqlite_errorname == "SQLITE_FULL" else source) or error from error


def _copy_tables(reading: Connection, writing: Connection, say: Say) -> None:
    for table in metadata.sorted_tables:
        _copy_table(table, reading, writing, say)


def _copy_table(table: Table, reading: Connection, writing: Connection, say: Say) -> None:
    streamed = reading.execution_options(stream_results=True, yield_per=ROWS_MAX)
    count = 0
    for rows in streamed.execute(select(table)).mappings().partitions(ROWS_MAX):
        writing.execute(insert(table), [dict(row) for row in rows])
        count += len(rows)
        say(f"copying {table.name}: {count} rows")


# --- command line ---------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Exit code: 0 done, 1 refused or wrong, 2 misused. What went wrong is one line on stderr."""
    say: Say = silent
    if arguments[:1] == ["--progress"]:
        say, arguments = _tell, arguments[1:]
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
        return commands[arguments[0]][0](say, *arguments[1:])
    except StoreError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or arguments[0]}: {error.strerror}", file=sys.stderr)
    except Exception as error:
        # A driver's error, of a server that is not there or a password that is wrong: its first line says which.
        print(str(error).strip().splitlines()[0], file=sys.stderr)
    return 1


def _tell(what: str) -> None:
    print(f"{PROGRESS}{what}", file=sys.stderr, flush=True)


def _backup(say: Say, url: str, file: str, at_revision: str = "0") -> int:
    print(f"revision {backup(url, Path(file).absolute(), at_revision=int(at_revision), say=say)}")
    return 0


def _restore(say: Say, file: str, url: str, seen: str = "0", ahead: str = str(AHEAD)) -> int:
    held, until = restore(Path(file).absolute(), url, ahead=int(ahead), seen=int(seen), say=say)
    print(f"revision {held}, going on at {until}")
    return 0


def _newest(_: Say, url: str) -> int:
    print(newest_seen(url))
    return 0


def _verify(say: Say, url: str) -> int:
    revision, problems = verify(url, say=say)
    for problem in problems:
        print(f"damaged: {problem}", file=sys.stderr)
    print(f"revision {revision}: {'damaged' if problems else 'whole'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
