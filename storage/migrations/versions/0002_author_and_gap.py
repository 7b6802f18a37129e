"""Who wrote each entry of the log, and the revisions that a restore has skipped."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_revision = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """From version 1. Neither database rewrites the log for a column with a constant default."""
    op.add_column("event_log", sa.Column("author", sa.Text, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "gap",
        sa.Column("after", _revision, primary_key=True, autoincrement=False),
        sa.Column("until", _revision, nullable=False),
        sa.Column("time", sa.Float(53), nullable=False),
    )
