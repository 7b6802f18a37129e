"""What is read from the database: functions over a connection whose transaction sees one snapshot.

The state at a past revision R is computed from the present: heads that have not changed since R are as they were, and
for every key that has, the first log row after R leads to the one before, which is what the key was at R. So a look
into the near past costs what has happened since, however long the log is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    and_,
    false,
    func,
    literal,
    select,
    tuple_,
    union_all,
)

from storage.errors import Compacted, FutureRevision
from storage.schema import compaction, counter, event_log, gap, object_table
from storage.store import Entry, Event, EventType, Key, Page

_log, _object = event_log, object_table
_before = event_log.alias("before")


def revision(connection: Connection) -> int:
    """The counter: the revision of the last commit."""
    return int(connection.execute(select(counter.c.revision)).scalar_one())


def floor(connection: Connection, resource: str | None) -> int:
    """History is complete from this revision on: for one resource, for everything ("") as promised to all, or over all
    (None).
    """
    query = select(func.coalesce(func.max(compaction.c.revision), 0))
    if resource is not None:
        query = query.where(compaction.c.resource.in_(["", resource]))
    return int(connection.execute(query).scalar_one())


def check_past(connection: Connection, at_revision: int, resource: str) -> int:
    """The newest revision, if a resource's state at `at_revision` can be told. Raises Compacted, FutureRevision."""
    newest = revision(connection)
    if at_revision > newest:
        raise FutureRevision(f"revision {at_revision} has not happened; the newest is {newest}", newest)
    oldest = floor(connection, resource)
    if at_revision < oldest:
        raise Compacted(f"the history of {resource} at revision {at_revision} is gone; it begins at {oldest}", oldest)
    _check_happened(connection, at_revision)
    return newest


def _check_happened(connection: Connection, at_revision: int) -> None:
    """Raises Compacted for a revision of a life that a restore has ended."""
    skipped = select(gap.c.until).where(gap.c.after < at_revision, gap.c.until > at_revision)
    until = connection.execute(skipped).scalar()
    if until is not None:
        raise Compacted(f"revision {at_revision} was lost with the state before a restore; read again", int(until))


def get(connection: Connection, key: Key, at_revision: int | None) -> Entry | None:
    """See Store.get."""
    row = _head(connection, key)
    if at_revision is not None:
        check_past(connection, at_revision, key.resource)
        while row is not None and row.revision > at_revision:
            row = _log_row(connection, row.previous_revision)
    if row is None or row.type == EventType.DELETE:
        return None
    return Entry(key, row.revision, row.create_revision, bytes(row.value), row.epoch)


def list_page(
    connection: Connection,
    resource: str,
    namespace: str | None,
    at_revision: int | None,
    after: tuple[str, str] | None,
    limit: int,
) -> Page:
    """See Store.list."""
    newest = revision(connection) if at_revision is None else check_past(connection, at_revision, resource)
    shown = newest if at_revision is None else at_revision
    state = _state_now(resource) if shown == newest else _state_at(resource, shown)
    columns = state.subquery()
    name = tuple_(columns.c.namespace, columns.c.name)
    query = select(columns).order_by(columns.c.namespace, columns.c.name)
    if namespace is not None:
        query = query.where(columns.c.namespace == namespace)
    if after is not None:
        query = query.where(name > tuple_(literal(after[0]), literal(after[1])))
    # One more than asked for tells whether there is more.
    rows = connection.execute(query.limit(limit + 1) if limit else query).all()
    more = bool(limit) and len(rows) > limit
    if more:
        rows = rows[:limit]
    entries = [Entry(Key(resource, row[0], row[1]), row[2], row[3], bytes(row[5]), row[4]) for row in rows]
    if not more:
        return Page(entries, shown, None, 0)
    last = (entries[-1].key.namespace, entries[-1].key.name)
    rest = select(func.count()).select_from(columns).where(name > tuple_(literal(last[0]), literal(last[1])))
    if namespace is not None:
        rest = rest.where(columns.c.namespace == namespace)
    return Page(entries, shown, last, int(connection.execute(rest).scalar_one()))


def resources(connection: Connection) -> list[str]:
    """See Store.resources. Steps through the index from one resource to the next, whatever the number of objects."""
    found: list[str] = []
    live = select(func.min(_object.c.resource)).where(_object.c.deleted == false())
    name = connection.execute(live).scalar()
    while name is not None:
        found.append(name)
        name = connection.execute(live.where(_object.c.resource > name)).scalar()
    return found


def events(connection: Connection, after_revision: int, resource: str | None, limit: int) -> list[Event]:
    """See Store.events."""
    newest = revision(connection)
    if after_revision > newest:
        raise FutureRevision(f"revision {after_revision} has not happened; the newest is {newest}", newest)
    oldest = floor(connection, resource)
    if after_revision + 1 < oldest:
        raise Compacted(f"events after revision {after_revision} are gone; the log begins at {oldest}", oldest)
    try:
        _check_happened(connection, after_revision)
    except Compacted as error:
        # What can be followed again are the events after `until`, not those from it on.
        raise Compacted(str(error), error.oldest + 1) from None
    query = _select_events().where(_log.c.revision > after_revision).order_by(_log.c.revision).limit(limit)
    if resource is not None:
        query = query.where(_log.c.resource == resource)
    return [_event(row) for row in connection.execute(query)]


def history(connection: Connection, key: Key, limit: int, at_revision: int = 0) -> list[Event]:
    """See Store.history: along the key's chain from its head."""
    found: list[Event] = []
    row = _head(connection, key)
    while row is not None and row.revision > at_revision > 0:
        row = _log_row(connection, row.previous_revision)
    oldest = floor(connection, key.resource)
    while row is not None and len(found) < limit:
        before = _log_row(connection, row.previous_revision) if row.previous_revision else None
        previous = bytes(before.value) if before is not None and before.type == EventType.PUT else None
        found.append(_make_event(row, previous))
        if row.revision < oldest:
            break
        row = before
    return found


def _head(connection: Connection, key: Key) -> Row[Any] | None:
    query = select(_log).join(_object, _object.c.revision == _log.c.revision)
    return connection.execute(query.where(_is(key))).one_or_none()


def _is(key: Key) -> ColumnElement[bool]:
    return and_(_object.c.resource == key.resource, _object.c.namespace == key.namespace, _object.c.name == key.name)


def _log_row(connection: Connection, at: int) -> Row[Any] | None:
    return connection.execute(select(_log).where(_log.c.revision == at)).one_or_none()


def _state_now(resource: str) -> Select[tuple[str, str, int, int, int, bytes]]:
    return (
        select(
            _object.c.namespace,
            _object.c.name,
            _object.c.revision,
            _object.c.create_revision,
            _object.c.epoch,
            _log.c.value,
        )
        .join(_log, _log.c.revision == _object.c.revision)
        .where(_object.c.resource == resource, _object.c.deleted == false())
    )


def _state_at(resource: str, at: int) -> CompoundSelect[Any]:
    unchanged = _state_now(resource).where(_object.c.revision <= at)
    changed = (
        select(
            _before.c.namespace,
            _before.c.name,
            _before.c.revision,
            _before.c.create_revision,
            _before.c.epoch,
            _before.c.value,
        )
        .join(_log, _log.c.previous_revision == _before.c.revision)
        .where(
            _log.c.resource == resource,
            _log.c.revision > at,
            _log.c.previous_revision > 0,
            _log.c.previous_revision <= at,
            _before.c.type == int(EventType.PUT),
        )
    )
    return union_all(unchanged, changed)


def _select_events() -> Select[tuple[Any, ...]]:
    join = _log.outerjoin(
        _before,
        # A deletion before a creation is not what the creation replaced.
        and_(_before.c.revision == _log.c.previous_revision, _before.c.type == int(EventType.PUT)),
    )
    return select(_log, _before.c.value.label("previous")).select_from(join)


def _event(row: Row[Any]) -> Event:
    return _make_event(row, None if row.previous is None else bytes(row.previous))


def _make_event(row: Row[Any], previous: bytes | None) -> Event:
    key = Key(row.resource, row.namespace, row.name)
    value = bytes(row.value)
    return Event(
        EventType(row.type), key, row.revision, row.create_revision, value, previous, row.origin, row.time, row.author
    )


def newest_before(connection: Connection, time: float, newest: int) -> int:
    """The last revision that was committed before `time`, by bisection: times never fall along the log."""
    low, high = 0, newest  # the answer is in [low, high]
    while low < high:
        middle = (low + high + 1) // 2
        # Rows may be gone by compaction: the next one that is there is not younger than what was here.
        row = connection.execute(
            select(_log.c.revision, _log.c.time).where(_log.c.revision >= middle).order_by(_log.c.revision).limit(1)
        ).one_or_none()
        if row is not None and row.time < time:
            low = max(middle, row.revision)
        else:
            high = middle - 1
    return low
