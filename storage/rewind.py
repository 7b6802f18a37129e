"""A copy of a store taken back to one of its retained revisions: how a back-up of the past, and so a fork, is made.

The log has it all: the head of each key at revision R is its newest entry up to R. Compaction never removes an entry
that was the head at or after the revision to which it has compacted, so this holds for every R from there on. Resources
that are kept for less (Leases, Events) and are not known any more as of R are left out: they are made anew.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select, text, update

from storage import reads
from storage.errors import FutureRevision
from storage.schema import compaction, counter, event_log, gap, object_table


def rewind(connection: Connection, revision: int) -> None:
    """Take a copy (a SQLite file of the present schema) back. Raises Compacted, FutureRevision."""
    newest = reads.revision(connection)
    if revision > newest:
        raise FutureRevision(f"revision {revision} has not happened; the newest is {newest}", newest)
    # The floor of everything, and a life that a restore has ended.
    reads.check_past(connection, revision, "")
    floors = select(compaction.c.resource).where(compaction.c.resource != "", compaction.c.revision > revision)
    forgotten = list(connection.execute(floors).scalars())
    connection.execute(delete(object_table))
    connection.execute(delete(event_log).where((event_log.c.revision > revision) | event_log.c.resource.in_(forgotten)))
    # SQLite takes the other columns of a row with max() from the row that has it.
    connection.execute(text(_HEADS))
    connection.execute(delete(compaction).where(compaction.c.resource.in_(forgotten)))
    connection.execute(update(compaction).where(compaction.c.revision > revision).values(revision=revision))
    connection.execute(update(compaction).where(compaction.c.swept > revision).values(swept=revision))
    connection.execute(delete(gap).where(gap.c.after >= revision))
    time = connection.execute(select(func.max(event_log.c.time))).scalar() or 0.0
    connection.execute(update(counter).values(revision=revision, time=time))


_HEADS = """
INSERT INTO object (resource, namespace, name, revision, create_revision, epoch, deleted)
SELECT resource, namespace, name, max(revision), create_revision, epoch, type = 2
FROM event_log GROUP BY resource, namespace, name"""
