"""How an existing database gets to the present schema: one file a step in `versions`, run by alembic when a store is
opened.

A new database is made from `storage/schema.py` at once, without these; a test compares what both lead to. A step's
revision is the schema version that it leads to, in four digits. Everything happens in the transaction that opens the
store: all of it, or nothing.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

DIRECTORY = Path(__file__).parent
VERSIONS = [DIRECTORY / "versions"]
"""Where steps are found."""


def upgrade(connection: Connection, found: int, to: str = "head") -> None:
    """Take a database from schema version `found` (0: no tables at all) to the newest, or to one in between."""
    config = Config()
    config.set_main_option("script_location", str(DIRECTORY))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(place) for place in VERSIONS))
    config.attributes["connection"] = connection
    if found:
        command.stamp(config, f"{found:04d}", purge=True)
    command.upgrade(config, to)
