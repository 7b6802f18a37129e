"""The first schema. Written out, and not taken from `storage/schema.py`, because that one moves on."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_revision = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables of version 1."""
    op.create_table(
        "object",
        sa.Column("resource", _name, primary_key=True),
        sa.Column("namespace", _name, primary_key=True),
        sa.Column("name", _name, primary_key=True),
        sa.Column("revision", _revision, nullable=False),
        sa.Column("create_revision", _revision, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "event_log",
        sa.Column("revision", _revision, primary_key=True, autoincrement=False),
        sa.Column("type", sa.SmallInteger, nullable=False),
        sa.Column("resource", _name, nullable=False),
        sa.Column("namespace", _name, nullable=False),
        sa.Column("name", _name, nullable=False),
        sa.Column("create_revision", _revision, nullable=False),
        sa.Column("previous_revision", _revision, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("event_log_resource", "event_log", ["resource", "revision"])
    op.create_table(
        "counter",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("revision", _revision, nullable=False),
        sa.Column("time", sa.Float(53), nullable=False),
    )
    op.create_table(
        "compaction",
        sa.Column("resource", _name, primary_key=True),
        sa.Column("revision", _revision, nullable=False),
        sa.Column("swept", _revision, nullable=False),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
