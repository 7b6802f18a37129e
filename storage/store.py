"""The contract of the revisioned store: the one small file to read first.

A store holds objects: opaque bytes under a key of (resource, namespace, name). Every committed mutation gets the next
**revision**, one counter for the whole store, and is appended to a log; commit order is revision order and there are no
holes, so a watcher that has seen revision 7 and then 8 has missed nothing.

Worked example, with an empty store at revision 0::

    commit(Put(pods/default/a, absent))   -> revision 1    object table: a@1        log: 1 put a
    commit(Put(pods/default/a, revision 1)) -> revision 2  object table: a@2        log: 1 put a, 2 put a
    commit(Put(pods/default/a, revision 1)) -> RevisionMismatch, nothing changes, the counter stays at 2
    commit(Delete(pods/default/a))        -> revision 3    object table: (empty)    log: 1 put a, 2 put a, 3 delete a
    get(a, at_revision=2)                 -> a@2           (until compact(2) or later; then Compacted)

The store knows keys, bytes and revisions; it never decodes a value. An object's bytes contain their own revision, which
is known only inside the transaction: a writer therefore hands over the bytes before and after it, and the store puts
the decimal number in between.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# --- what is stored ---------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """Where an object lives. `resource` is "pods" or "deployments.apps"; `namespace` is empty if cluster-scoped."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An object at one revision."""

    key: Key
    revision: int
    create_revision: int
    value: bytes
    epoch: int = 0


class EventType(enum.IntEnum):
    """What a log entry did. A put that created its key has `create_revision == revision`."""

    PUT = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One log entry. For a delete `value` is the object's last state with the revision of the deletion spliced in.

    `previous` is the value that the mutation replaced, or None for a creation and where the log no longer has it.
    """

    type: EventType
    key: Key
    revision: int
    create_revision: int
    value: bytes
    previous: bytes | None = None
    # Set by the apiserver that wrote it; tells a follower of the log its own writes.
    origin: str = ""
    # When it was committed by the writer's clock, in seconds since 1970. It never goes back from one event to the next.
    time: float = 0.0
    # Whoever asked for it, as the mutation said.
    author: str = ""


# --- what can be asked for --------------------------------------------------------------------------------------------

ABSENT = 0
"""As `expect`: the key must not exist."""
ANY = -1
"""As `expect`: whatever is there, or nothing."""
EXISTS = -2
"""As `expect`: the key must exist, at whatever revision."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on another key, judged in the mutation's transaction: it exists and has this epoch.

    A leader's Lease carries an epoch that grows with each change of holder, so a write guarded by it fails once
    leadership has moved. An object that was deleted and made again may come to the same epoch: `create_revision`, which
    no two objects share, says which one is meant (0: any).
    """

    key: Key
    epoch: int
    create_revision: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """Write `head + str(revision) + tail` under `key`, if `expect` (a revision, ABSENT, ANY or EXISTS) and all guards
    hold.
    """

    key: Key
    expect: int
    head: bytes
    tail: bytes
    epoch: int = 0
    guards: tuple[Guard, ...] = ()
    # Kept with the log entry, for history.
    author: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`, logging `head + str(revision) + tail` as its last state, if `expect` and all guards hold. ABSENT is
    senseless.

    With ANY, too, the key must exist: where there is nothing to delete, KeyMissing.
    """

    key: Key
    expect: int
    head: bytes
    tail: bytes
    guards: tuple[Guard, ...] = ()
    author: str = ""


Mutation = Put | Delete


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list in key order. `after` continues it (None: complete); `revision` is that of the whole list."""

    entries: list[Entry]
    revision: int
    after: tuple[str, str] | None
    remaining: int


# --- the contract -----------------------------------------------------------------------------------------------------


class Store(Protocol):
    """A revisioned store. All methods may be called from one event loop, concurrently.

    Promises:

    - An acknowledged `commit` survives the death of the process and of the machine.
    - Revisions of one store only grow, by one a mutation, also across restart. A store that was restored from a back-up
      goes on at a revision beyond all that its other lives can have given out; what lies between is Compacted.
    - `commit` of several mutations is all or nothing; each gets a revision of its own, in order.
    - A commit that raises `Unavailable` may or may not have happened (the answer was lost); any other error means: it
      did not.
    - A cancelled `commit` goes on: what is queued is written.
    - `follow` yields every event exactly once, in order, in batches; it never blocks a writer. A follower that falls
      too far behind gets `Compacted` and reads the state again.

    Not promised: `get` and `list` are for start-up, time travel and tools; the apiserver serves from its own cache.
    """

    async def commit(self, *mutations: Mutation) -> list[Event]:
        """Commit all mutations in one transaction, durably; their events, in order.

        Raises KeyExists, KeyMissing, RevisionMismatch, GuardFailed (each names the key and holds the present entry),
        StorageFull, ReadOnly, Unavailable.
        """
        ...

    async def get(self, key: Key, at_revision: int | None = None) -> Entry | None:
        """The object now or as of a retained revision; None if it does not (did not) exist. Raises Compacted,
        FutureRevision.
        """
        ...

    async def list(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        at_revision: int | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 0,
    ) -> Page:
        """Objects of a resource by (namespace, name), as of one revision. `limit` 0: all. Raises Compacted,
        FutureRevision.
        """
        ...

    async def resources(self) -> Sequence[str]:
        """Every resource of which at least one object exists."""
        ...

    async def events(self, after_revision: int, *, resource: str | None = None, limit: int = 1000) -> Sequence[Event]:
        """Log entries after a revision, oldest first. Raises Compacted if some of them are gone, FutureRevision."""
        ...

    async def history(self, key: Key, *, limit: int = 100, at_revision: int = 0) -> Sequence[Event]:
        """The retained log entries of one key, newest first; of those up to a revision, if it is not 0."""
        ...

    def follow(self, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        """Batches of events after a revision, for ever. Raises Compacted, FutureRevision."""
        ...

    async def revision(self) -> int:
        """The revision of the last commit."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may commit to the same database."""
        ...

    async def newest(self) -> int:
        """The revision of the last commit of any process: at least that of every commit acknowledged before the call.

        As `revision`, and cheaper where it is asked often. Raises Unavailable.
        """
        ...

    async def compacted_revision(self) -> int:
        """History is retained for revisions >= this one."""
        ...

    async def compact(self, revision: int) -> int:
        """Forget history before `revision` (current objects stay), in bounded batches; the number of log entries
        removed.

        Raises FutureRevision.
        """
        ...

    async def erase(self, resource: str) -> int:
        """Forget all history of one resource, and leave no trace of it in the database's files, as far as the database
        can do that; the number of log entries removed.
        """
        ...

    async def close(self) -> None:
        """Finish what is queued and let go of the database. Idempotent."""
        ...
