"""Forgetting history: in batches, each a short transaction of its own, and never in the way of commits.

Compacting to C removes every log row that was replaced at or before C, and deletions before C with their heads. What
was the state at C stays, so C itself can still be asked for. The removal walks the log once: each row in (swept, C]
names, as its previous revision, the row that it replaced. The work is that of what has happened since the last
compaction, not of what is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, and_, delete, select, text, tuple_, update
from sqlalchemy.engine import CursorResult

from storage import reads
from storage.errors import FutureRevision
from storage.schema import compaction, counter, event_log, object_table
from storage.store import EventType

BATCH_SECONDS = 0.004
"""What a batch may take: a commit that arrives meanwhile waits for it, and for its flush."""
BATCH_ROWS_MIN, BATCH_ROWS_MAX = 20, 2000

_log, _object = event_log, object_table


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history to keep: what is younger than `seconds`, and no more than the last `events`. None: no such
    limit.
    """

    seconds: float | None = None
    events: int | None = None


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """`default` for all resources together, and something shorter for single ones, which then neither fill the log nor
    push the others' history out of it. By default nothing is ever forgotten."""

    default: Retention = Retention()
    resources: Mapping[str, Retention] = field(default_factory=dict)


class BatchSize:
    """Rows for the next batch, from how long the last one took."""

    def __init__(self) -> None:
        self.rows = 200

    def took(self, seconds: float) -> None:
        """Move towards BATCH_SECONDS, by at most doubling or halving."""
        factor = min(2.0, max(0.5, BATCH_SECONDS / max(seconds, 1e-6)))
        self.rows = int(min(BATCH_ROWS_MAX, max(BATCH_ROWS_MIN, self.rows * factor)))


def promise(connection: Connection, resource: str, revision: int) -> None:
    """Tell readers that history before `revision` is gone, before any of it goes. Never moves back. Raises
    FutureRevision.
    """
    with connection.begin():
        newest = reads.revision(connection)
        if revision > newest:
            raise FutureRevision(f"revision {revision} has not happened; the newest is {newest}", newest)
        # Several processes may do this at once, so it has to be right in any order.
        row = {"resource": resource, "revision": revision}
        connection.execute(text("INSERT INTO compaction VALUES (:resource, 0, 0) ON CONFLICT DO NOTHING"), row)
        mine = and_(compaction.c.resource == resource, compaction.c.revision < revision)
        connection.execute(update(compaction).where(mine).values(revision=revision))


def sweep(connection: Connection, resource: str, rows: int) -> tuple[int, bool]:
    """One batch: go over the next `rows` log rows. How many were removed, and whether all that was promised is done."""
    with connection.begin():
        # On Postgres the row is locked: of several processes that compact, one goes over each stretch of the log.
        locked = select(compaction).where(compaction.c.resource == resource).with_for_update()
        state = connection.execute(locked).one_or_none()
        if state is None or state.swept >= state.revision:
            return 0, True
        start, end = state.swept, state.revision
        mine = _log.c.resource == resource if resource else _log.c.revision > 0
        window = select(_log.c.revision).where(_log.c.revision > start, _log.c.revision <= end, mine)
        stop = connection.execute(window.order_by(_log.c.revision).limit(1).offset(rows - 1)).scalar()
        stop = end if stop is None else stop
        replaced = select(_log.c.previous_revision).where(
            _log.c.revision > start, _log.c.revision <= stop, _log.c.previous_revision > 0, mine
        )
        # Deletions from `start`, which the last batch had to leave because it ended there, to before `stop`.
        gone = select(_log.c.revision, _log.c.resource, _log.c.namespace, _log.c.name).where(
            _log.c.revision >= start, _log.c.revision < stop, _log.c.type == int(EventType.DELETE), mine
        )
        heads = connection.execute(gone).all()
        if heads:
            # Heads are locked by commits, too, in any order; that could end in a deadlock but for the lock that is
            # before all others.
            connection.execute(select(counter.c.revision).with_for_update())
        removed = _rowcount(connection.execute(delete(_log).where(_log.c.revision.in_(replaced))))
        for head in heads:
            key = tuple_(_object.c.resource, _object.c.namespace, _object.c.name) == tuple_(*head[1:])
            connection.execute(delete(_object).where(key, _object.c.revision == head.revision))
        if heads:
            tombstones = delete(_log).where(_log.c.revision.in_([head.revision for head in heads]))
            removed += _rowcount(connection.execute(tombstones))
        connection.execute(update(compaction).where(compaction.c.resource == resource).values(swept=stop))
        return removed, stop >= end


def unfinished(connection: Connection) -> list[str]:
    """Resources whose removal a crash has interrupted."""
    return list(
        connection.execute(select(compaction.c.resource).where(compaction.c.swept < compaction.c.revision)).scalars()
    )


def due(connection: Connection, resource: str, retention: Retention, now: float) -> int:
    """The revision to compact a resource ("": all) to; 0 if there is nothing to forget."""
    newest = reads.revision(connection)
    mine = _log.c.resource == resource if resource else _log.c.revision > 0
    floor = connection.execute(select(compaction.c.revision).where(compaction.c.resource == resource)).scalar() or 0
    revision = 0
    if retention.seconds is not None:
        revision = reads.newest_before(connection, now - retention.seconds, newest)
    # So few revisions later there can't be more entries, and nobody has to count them.
    if retention.events is not None and newest - floor > retention.events:
        nth = select(_log.c.revision).where(mine).order_by(_log.c.revision.desc()).limit(1).offset(retention.events)
        revision = max(revision, connection.execute(nth).scalar() or 0)
    # Only what has happened to this resource counts, so that a quiet one does not cut followers off.
    last = select(_log.c.revision).where(mine, _log.c.revision <= revision).order_by(_log.c.revision.desc()).limit(1)
    found = int(connection.execute(last).scalar() or 0)
    return found if found > floor else 0


def _rowcount(result: CursorResult[tuple[()]]) -> int:
    return max(0, result.rowcount)
