"""The writing process dies at the worst moments; nothing that it acknowledged may be missing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from storage import Key, open_store
from tests.support.postgres import PostgresServer
from tests.support.store_checks import check_store
from tests.support.store_crasher import POINTS
from tests.support.torture import figure, times

pytestmark = pytest.mark.torture

ROUNDS = times(50)
"""Times each point is hit."""


def write_until_death(url: str, point: str, count: int) -> list[tuple[int, Key]]:
    """What was acknowledged until the process died."""
    command = [sys.executable, "-m", "tests.support.store_crasher", url, point, str(count)]
    died = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert died.returncode == 9, died.stderr
    lines = [line.split() for line in died.stdout.splitlines()]
    return [(int(revision), Key("pods", "default", name)) for revision, name in lines]


async def crash(url: str, point: str) -> None:
    acknowledged: list[tuple[int, Key]] = []
    for turn in range(ROUNDS):
        acknowledged += write_until_death(url, point, 3 + turn * 4)
        store = await open_store(url)
        newest = await check_store(store, acknowledged)
        await store.close()
        assert newest > 0
    revisions = [revision for revision, _ in acknowledged]
    assert len(set(revisions)) == len(revisions), "a revision was given out twice"
    figure(3, f"{ROUNDS} ends {point} ({url.partition(':')[0]}): {len(revisions)} acknowledged writes, none lost")


@pytest.mark.parametrize("point", POINTS)
async def test_sqlite_loses_nothing_that_was_acknowledged(tmp_path: Path, point: str) -> None:
    await crash(f"sqlite:///{tmp_path}/store.db", point)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize("point", POINTS)
async def test_postgres_loses_nothing_that_was_acknowledged(postgres_server: PostgresServer, point: str) -> None:
    await crash(postgres_server.url(), point)
