"""The revisioned store over SQLAlchemy: knows keys, bytes and revisions, never a Pod.

Read `store.py` first: the contract, with a worked example. Then `schema.py` (the tables), `judge.py` (what a commit
becomes), `writer.py` (group commit), `watch.py` (following the log), `compactor.py` (forgetting). `sqlite.py` and
`postgres.py` are the only places that know a database; `opening.py` decides whether one may be used.

What does not belong here: objects' meaning, caches of decoded objects, encryption of values, anything of the API.
"""

from storage.compactor import Retention, RetentionPolicy
from storage.opening import open_store
from storage.store import ABSENT, ANY, EXISTS, Delete, Entry, Event, EventType, Guard, Key, Mutation, Page, Put, Store

__all__ = [
    "ABSENT",
    "ANY",
    "EXISTS",
    "Delete",
    "Entry",
    "Event",
    "EventType",
    "Guard",
    "Key",
    "Mutation",
    "Page",
    "Put",
    "Retention",
    "RetentionPolicy",
    "Store",
    "open_store",
]
