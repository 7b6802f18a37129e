"""Whether a commit's conditions hold, and which rows it becomes: pure, over the heads that the writer has read.

A group is many commits in one database transaction. Each is judged by itself, in the order in which they came, and sees
the effect of those before it; one whose condition does not hold leaves no trace and takes no revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from storage.errors import GuardFailed, KeyExists, KeyMissing, RevisionMismatch, StoreError
from storage.store import ABSENT, ANY, EXISTS, Delete, Entry, Event, EventType, Guard, Key, Mutation


class Head(NamedTuple):
    """The last log row of a key."""

    revision: int
    create_revision: int
    epoch: int
    deleted: bool
    value: bytes


class LogRow(NamedTuple):
    """A row of `event_log`, in the order of its columns."""

    revision: int
    type: int
    resource: str
    namespace: str
    name: str
    create_revision: int
    previous_revision: int
    epoch: int
    time: float
    origin: str
    value: bytes
    author: str


Verdict = list[Event] | StoreError


def keys_of(commits: Iterable[Sequence[Mutation]]) -> set[Key]:
    """Every key that judging needs the head of: those written and those of guards."""
    keys: set[Key] = set()
    for mutations in commits:
        for mutation in mutations:
            keys.add(mutation.key)
            for guard in mutation.guards:
                keys.add(guard.key)
    return keys


class Group:
    """Commits on their way into one transaction.

    Invariants: `revision` is the counter's value after all accepted commits; `log` has one row for each revision given
    out; `changed` has the new head of exactly the keys that occur in `log`.
    """

    def __init__(self, revision: int, heads: dict[Key, Head], time: float, origin: str) -> None:
        self.revision = revision
        self.log: list[LogRow] = []
        self.changed: dict[Key, Head] = {}
        self._stored = heads
        self._time = time
        self._origin = origin

    def judge(self, mutations: Sequence[Mutation]) -> Verdict:
        """The commit's events, or the error of the first condition that does not hold; then nothing has changed."""
        revision, mine = self.revision, dict[Key, Head]()
        rows: list[LogRow] = []
        events: list[Event] = []
        for mutation in mutations:
            key = mutation.key
            for guard in mutation.guards:
                if (failed := _check_guard(guard, self._head(guard.key, mine))) is not None:
                    return failed
            head = self._head(key, mine)
            live = head if head is not None and not head.deleted else None
            if (broken := _check_expect(mutation, live)) is not None:
                return broken
            revision += 1
            mine[key] = self._write(mutation, revision, head, live, rows, events)
        self.revision = revision
        self.changed.update(mine)
        self.log.extend(rows)
        return events

    def _head(self, key: Key, mine: dict[Key, Head]) -> Head | None:
        return mine.get(key) or self.changed.get(key) or self._stored.get(key)

    def _write(
        self,
        mutation: Mutation,
        revision: int,
        head: Head | None,
        live: Head | None,
        rows: list[LogRow],
        events: list[Event],
    ) -> Head:
        key = mutation.key
        value = b"%b%d%b" % (mutation.head, revision, mutation.tail)
        created = live.create_revision if live is not None else revision
        before = head.revision if head is not None else 0
        if isinstance(mutation, Delete):
            kind, epoch = EventType.DELETE, live.epoch if live is not None else 0
        else:
            kind, epoch = EventType.PUT, mutation.epoch
        rows.append(
            LogRow(revision, int(kind), *key, created, before, epoch, self._time, self._origin, value, mutation.author)
        )
        previous = live.value if live is not None else None
        events.append(Event(kind, key, revision, created, value, previous, self._origin, self._time, mutation.author))
        return Head(revision, created, epoch, kind is EventType.DELETE, value)


def _check_guard(guard: Guard, head: Head | None) -> StoreError | None:
    if head is None or head.deleted:
        return GuardFailed(guard.key, f"the guarding object does not exist; epoch {guard.epoch} was expected")
    if head.epoch != guard.epoch:
        message = f"the guarding object has epoch {head.epoch}, not {guard.epoch}"
        return GuardFailed(guard.key, message, _entry(guard.key, head))
    if guard.create_revision not in (0, head.create_revision):
        message = f"the guarding object was created at {head.create_revision}, not {guard.create_revision}"
        return GuardFailed(guard.key, message, _entry(guard.key, head))
    return None


def _check_expect(mutation: Mutation, live: Head | None) -> StoreError | None:
    expect, key = mutation.expect, mutation.key
    if live is None:
        # Nothing can be deleted where there is nothing, so ANY, too, means "must exist" for a deletion.
        if expect > 0 or expect == EXISTS or isinstance(mutation, Delete):
            return KeyMissing(key, "does not exist")
    elif expect == ABSENT:
        return KeyExists(key, f"exists at revision {live.revision}", _entry(key, live))
    elif expect not in (ANY, EXISTS, live.revision):
        return RevisionMismatch(key, f"is at revision {live.revision}, not {expect}", _entry(key, live))
    return None


def _entry(key: Key, head: Head) -> Entry:
    return Entry(key, head.revision, head.create_revision, head.value, head.epoch)
