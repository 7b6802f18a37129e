"""Errors of the store.

StoreError
├── PreconditionFailed    the mutation's condition does not hold; nothing was written
│   ├── KeyExists         `expect` was ABSENT
│   ├── KeyMissing        `expect` was a revision or EXISTS
│   ├── RevisionMismatch  `expect` was another revision
│   └── GuardFailed       a guard's key is absent or has another epoch
├── Compacted             that revision's history is gone, or a follower was too slow; read the state again
├── FutureRevision        that revision has not happened
├── Unavailable           the database can't be reached or is locked; a commit may or may not have happened
├── StorageFull           no space; nothing was written, reads work
├── ReadOnly              the database can't be written; nothing was written, reads work
├── Corrupt               the file fails its integrity check, or is not a database
└── WrongDatabase         a newer schema, another cluster's data, or a file that another process holds
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.store import Entry, Key


class StoreError(Exception):
    """Root of the store's errors; the message is for a person."""


class PreconditionFailed(StoreError):
    """A mutation's condition does not hold. `present` is what is there instead, if anything is."""

    def __init__(self, key: Key, message: str, present: Entry | None = None) -> None:
        super().__init__(f"{'/'.join(part for part in key if part)}: {message}")
        self.key = key
        self.present = present


class KeyExists(PreconditionFailed):
    """The key was to be created and exists."""


class KeyMissing(PreconditionFailed):
    """The key was to exist and does not."""


class RevisionMismatch(PreconditionFailed):
    """The key exists at another revision than expected."""


class GuardFailed(PreconditionFailed):
    """A guard's key is absent or has another epoch."""


class Compacted(StoreError):
    """The history asked for is gone. `oldest` is the first revision that is retained."""

    def __init__(self, message: str, oldest: int) -> None:
        super().__init__(message)
        self.oldest = oldest


class FutureRevision(StoreError):
    """The revision asked for has not happened. `newest` is the last one that has."""

    def __init__(self, message: str, newest: int) -> None:
        super().__init__(message)
        self.newest = newest


class Unavailable(StoreError):
    """The database did not answer in time or can't be reached."""


class StorageFull(StoreError):
    """The disk or the quota is full."""


class ReadOnly(StoreError):
    """The database refuses writes."""


class Corrupt(StoreError):
    """The database file is damaged."""


class WrongDatabase(StoreError):
    """This database is not one that this process may use."""
