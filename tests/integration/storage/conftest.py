"""Databases for faults: each test has its own file, or its own database on one server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer, find_binaries, run_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if find_binaries() is None:
        pytest.skip("no PostgreSQL server programs on this machine")
    with run_postgres() as server:
        yield server
