"""Schemas: migrations lead to what a new database gets, and an old database is brought there with its content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url, text

from storage import ANY, Key, Put, migrations, open_store, opening
from storage.database import Database
from storage.errors import WrongDatabase
from storage.schema import metadata

STEP = '''
"""A step for a test: a table more, with what it is computed from."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"

def upgrade():
    op.create_table("extra", sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False))
    op.execute("INSERT INTO extra SELECT revision FROM event_log")
    {more}
'''


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = opening.database_of(make_url(url))
    yield opened
    opened.close()


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return [change for change in compare_metadata(context, metadata) if "alembic_version" not in str(change)]


def test_all_migrations_lead_to_the_schema_of_a_new_database(database: Database) -> None:
    with database.writers.begin() as connection:
        migrations.upgrade(connection, 0)
    with database.writers.begin() as connection:
        assert differences(connection) == []


async def make_old(url: str) -> None:
    store = await open_store(url, cluster_id="one")
    for _ in range(3):
        await store.commit(Put(Key("pods", "x", "a"), ANY, b"", b""))
    await store.close()


def add_step(monkeypatch: pytest.MonkeyPatch, directory: Path, more: str = "") -> None:
    (directory / "0003_extra.py").write_text(STEP.format(more=more))
    monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, directory])
    monkeypatch.setattr(opening, "SCHEMA_VERSION", 3)


async def test_an_older_database_is_brought_to_the_present(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_old(url)
    with monkeypatch.context() as newer:
        add_step(newer, tmp_path)
        store = await open_store(url, cluster_id="one")
        assert len(await store.events(0)) == 3
        await store.close()
        await (await open_store(url)).close()
    with pytest.raises(WrongDatabase, match="schema 3; this version of Cutaway knows up to 2"):
        await open_store(url)


async def test_a_migration_that_fails_changes_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_old(url)
    with monkeypatch.context() as newer:
        add_step(newer, tmp_path, more="raise RuntimeError('the step is wrong')")
        with pytest.raises(RuntimeError, match="the step is wrong"):
            await open_store(url)
    store = await open_store(url, cluster_id="one")
    assert await store.revision() == 3
    await store.close()


async def test_a_database_of_the_first_version_keeps_its_log_and_gets_authors(url: str) -> None:
    database = opening.database_of(make_url(url))
    with database.writers.begin() as connection:
        migrations.upgrade(connection, 0, "0001")
        for statement in (
            "INSERT INTO object VALUES ('pods', 'x', 'a', 1, 1, 0, false)",
            "INSERT INTO event_log VALUES (1, 1, 'pods', 'x', 'a', 1, 0, 0, 1.0, 'o', :value)",
            "INSERT INTO counter VALUES (1, 1, 1.0)",
            "INSERT INTO meta VALUES ('cluster_id', 'one'), ('schema_version', '1')",
        ):
            connection.execute(text(statement), {"value": b"v"} if ":value" in statement else {})
    database.close()
    store = await open_store(url, cluster_id="one")
    await store.commit(Put(Key("pods", "x", "a"), ANY, b"", b"", author="jane"))
    assert [(event.revision, event.author) for event in await store.events(0)] == [(1, ""), (2, "jane")]
    await store.close()
