"""The tables.

`object` holds one row a key: the head of that key's chain in the log. It has no bytes of its own. The current bytes are
those of the log row at `object.revision`, which compaction never removes; so each value is written once, and a write's
cost depends neither on the length of the log nor on that of the key's history. A deleted key keeps its head (with
`deleted` set) until its deletion is compacted.

`event_log` rows are written once and never changed. `previous_revision` leads to the row before, of the same key (0:
none).

Worked example, after create a (1), create b (2), update a (3), delete b (4)::

    object                          event_log
    a  revision 3                   1  put a     previous 0
    b  revision 4  deleted          2  put b     previous 0
                                    3  put a     previous 1     <- head of a
                                    4  delete b  previous 2     <- head of b

`compact(4)` removes 1 and 2 (replaced at or before 4); `compact(5)` would remove 4 too, and b's head.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    event,
    text,
)

SCHEMA_VERSION = 2
"""Grows with each migration in `storage/migrations`; a database with a higher one is refused."""

APPLICATION_ID = 0x43757461
"""SQLite's `application_id` of our files ("Cuta"), so that no other program's file is ever written to."""

# Keys sort by bytes, as the apiserver's cache sorts them, and not by a language's rules.
_Name = Text().with_variant(Text(collation="C"), "postgresql")
# Only INTEGER PRIMARY KEY is SQLite's row id, without an index beside the table.
_Revision = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

object_table = Table(
    "object",
    metadata,
    Column("resource", _Name, primary_key=True),
    Column("namespace", _Name, primary_key=True),
    Column("name", _Name, primary_key=True),
    Column("revision", _Revision, nullable=False),
    Column("create_revision", _Revision, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    sqlite_with_rowid=False,
)


@event.listens_for(object_table, "before_create")
def _leave_room(table: Table, connection: Connection, **_: Any) -> None:
    """Room for updates within the page: a head changes at every write of its key and none of its indexed columns does.

    Said here and not with the table: SQLAlchemy would load all of its PostgreSQL to judge the word, in every process.
    """
    if connection.dialect.name == "postgresql":
        table.dialect_kwargs["postgresql_with"] = {"fillfactor": 70}


event_log = Table(
    "event_log",
    metadata,
    Column("revision", _Revision, primary_key=True, autoincrement=False),
    Column("type", SmallInteger, nullable=False),
    Column("resource", _Name, nullable=False),
    Column("namespace", _Name, nullable=False),
    Column("name", _Name, nullable=False),
    Column("create_revision", _Revision, nullable=False),
    Column("previous_revision", _Revision, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("time", Float(53), nullable=False),
    Column("origin", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    # Who asked for it, in the caller's words. Behind the value, because it is read only with the past.
    Column("author", Text, nullable=False, server_default=text("''")),
    # For the past of one resource and for its retention. It grows at one end for each resource, so it stays cheap to
    # write.
    Index("event_log_resource", "resource", "revision"),
)

counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", _Revision, nullable=False),
    Column("time", Float(53), nullable=False),
)
"""One row, locked by every writing transaction before anything else: commit order is revision order, and an aborted
transaction leaves no hole, as a sequence would. `time` is that of the last event, which the next one's is never
before."""

compaction = Table(
    "compaction",
    metadata,
    Column("resource", _Name, primary_key=True),
    Column("revision", _Revision, nullable=False),
    Column("swept", _Revision, nullable=False),
)
"""How far history is forgotten: a row with resource "" for everything, and one for each resource with a retention of
its own. `revision` is promised to readers before rows go; `swept` is how far the removal has got, so that it goes on
after a crash."""

gap = Table(
    "gap",
    metadata,
    Column("after", _Revision, primary_key=True, autoincrement=False),
    Column("until", _Revision, nullable=False),
    Column("time", Float(53), nullable=False),
)
"""Revisions that another life of this cluster may have given out: a row for each time that a back-up was restored.

A restored store goes on far ahead of the back-up (see `backup.py`), and what lies strictly between `after` (the
back-up's last revision) and `until` (where it goes on) never happened here. Who asks for it saw a future that is gone,
and has to read the state again."""

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""`cluster_id` and `schema_version`."""
