"""The seam between what a revisioned store means and what one database needs.

`sqlite.py` and `postgres.py` implement it; everything else in this package is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Engine

from storage.errors import StoreError
from storage.judge import Group, Head
from storage.store import Event, Key
from storage.watch import Hub, ReadLog


class Counter(NamedTuple):
    """The locked counter row."""

    revision: int
    time: float


class WriteSession(Protocol):
    """One connection that writes, used by one thread. Its methods raise the driver's errors; `Database.translate` names
    them.

    begin -> heads -> save -> commit, or recover after any error. Neither it nor rollback ever raises; after it `begin`
    works again as soon as the database does, over a new connection where the old one is gone.
    """

    def begin(self) -> Counter:
        """Start a transaction and lock the counter row."""
        ...

    def heads(self, keys: Iterable[Key]) -> dict[Key, Head]:
        """The heads of those keys that have one."""
        ...

    def save(self, group: Group, time: float) -> None:
        """Write the group's log rows, heads and counter."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def recover(self, error: Exception) -> None:
        """Roll back after an error, and do what may let the next transaction succeed."""
        ...

    def connection(self) -> Connection:
        """For work that isn't hot: the same connection, outside of any transaction."""
        ...

    def close(self) -> None: ...


class LogTail(Protocol):
    """Keeps a hub up to date with a log that others write, too."""

    async def run(self) -> None:
        """For ever, until cancelled."""
        ...

    def committed(self, events: Sequence[Event]) -> None:
        """A commit of this process, in the loop."""
        ...

    async def newest(self) -> int:
        """The counter as the database has it now. Raises the driver's errors."""
        ...


class Database(Protocol):
    """An open, checked database of ours."""

    readers: Engine
    """Each of its transactions sees one snapshot and writes nothing."""

    writers: Engine
    """For what is written at opening and by tools."""

    one_writer: bool
    """Whether all writing has to go through the one WriteSession (SQLite), or other connections may write too
    (Postgres).
    """

    def open_session(self) -> WriteSession: ...

    def lock_schema(self, connection: Connection) -> None:
        """Let no other process make or migrate tables until the transaction ends."""
        ...

    def tail(self, hub: Hub, read: ReadLog, origin: str) -> LogTail | None:
        """What brings other processes' commits to the hub; None where there are no other processes."""
        ...

    def begin_erasing(self, connection: Connection) -> None:
        """From now on what this connection removes is overwritten, where the database can do that."""
        ...

    def end_erasing(self, connection: Connection) -> None:
        """As before again; nothing of what was removed is left in a log beside the database."""
        ...

    def translate(self, error: Exception) -> StoreError | None:
        """The store's error for a driver's, or None if it isn't one."""
        ...

    def close(self) -> None:
        """Let go of connections and locks, after the session is closed."""
        ...
