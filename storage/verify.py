"""Whether a state is sound: what must hold of its tables, and of a SQLite file's pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import func, make_url, select, text
from sqlalchemy.engine import URL

from storage import sqlite
from storage.errors import Corrupt
from storage.schema import counter, event_log
from storage.snapshot import check_ours, existing, open_read_only, reader

Say = Callable[[str], None]
"""Hears what is being done, in a few words, while it is done."""


def silent(what: str) -> None:
    """For whoever does not want to hear it."""


def verify(url: str, *, say: Say = silent) -> tuple[int, list[str]]:
    """The store's revision and everything that is wrong with it. Raises StoreError if it can't be read at all."""
    source = make_url(url)
    problems = []
    if source.get_backend_name() == "sqlite":
        path = existing(source)
        say(f"checking the pages of {path.stat().st_size / 1e6:.0f} MB")
        try:
            with closing(open_read_only(path)) as driver:
                problems += [row[0] for row in driver.execute("PRAGMA integrity_check") if row[0] != "ok"]
        except sqlite3.Error as error:
            raise sqlite.translate(error, path) or error from error
    with reader(source) as connection:
        check_ours(connection, str(source.database))
        revision = int(connection.execute(select(counter.c.revision)).scalar_one())
        newest = connection.execute(select(func.max(event_log.c.revision))).scalar() or 0
        if newest > revision:
            problems.append(f"the log reaches revision {newest}, the counter {revision}")
        for what, condition in _CHECKS.items():
            say(f"looking for {what}")
            count = connection.execute(text(condition)).scalar_one()
            if count:
                problems.append(f"{count} {what}")
    return revision, problems


_LOST = "heads without a log entry of the same key"
_CHECKS = {
    _LOST: """
        SELECT count(*) FROM object o LEFT JOIN event_log l ON l.revision = o.revision
        WHERE l.revision IS NULL OR l.resource <> o.resource OR l.namespace <> o.namespace OR l.name <> o.name""",
    "heads that are older than the newest log entry of their key": """
        SELECT count(*) FROM object o JOIN (SELECT resource, namespace, name, max(revision) AS newest FROM event_log
        GROUP BY resource, namespace, name) l
        ON l.resource = o.resource AND l.namespace = o.namespace AND l.name = o.name
        WHERE l.newest > o.revision""",
    "heads that say another thing about deletion than the log": """
        SELECT count(*) FROM object o JOIN event_log l ON l.revision = o.revision
        WHERE (l.type = 2 AND NOT o.deleted) OR (l.type = 1 AND o.deleted)""",
    "log entries that do not come after the one that they replaced": """
        SELECT count(*) FROM event_log WHERE previous_revision >= revision OR create_revision > revision""",
}


def revision_of(file: Path) -> int:
    """The revision of a back-up. Raises StoreError if it is none, or has lost objects."""
    with reader(URL.create("sqlite", database=str(file))) as connection:
        check_ours(connection, str(file))
        missing = connection.execute(text(_CHECKS[_LOST])).scalar_one()
        if missing:
            raise Corrupt(f"{file} is damaged: {missing} objects have lost their content")
        return int(connection.execute(select(counter.c.revision)).scalar_one())


def newest_seen(url: str) -> int:
    """The revision of the store at `url`, which may be damaged or of any version; 0 if it can't be told."""
    try:
        with reader(make_url(url)) as connection:
            return int(connection.execute(select(counter.c.revision)).scalar_one())
    except Exception:
        # It is asked for because it is about to be replaced, perhaps for the very reason that it can't be read.
        return 0
