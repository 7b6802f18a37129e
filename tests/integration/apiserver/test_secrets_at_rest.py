"""A Secret's value is in no file of the cluster, also when it is encrypted only later, and after a rotation."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.backup import backup
from tests.support.apiserver_process import ApiServerProcess
from tests.support.rest import Rest
from tests.support.witness import Until

SECRETS = "/api/v1/namespaces/default/secrets"
CANARY = "canary-4f1d7a"


def key(name: str) -> str:
    return f"{name}: {base64.b64encode(os.urandom(32)).decode()}\n"


def traces(directory: Path) -> list[str]:
    """The files below that hold the value, plain or as it stands in the object."""
    wanted = (CANARY.encode(), base64.b64encode(CANARY.encode()))
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and any(text in path.read_bytes() for text in wanted)
    ]


def sealed_with(directory: Path) -> set[str]:
    """The names of the keys with which anything in the log is sealed; "" for what is not."""
    with closing(sqlite3.connect(f"file:{directory / 'state.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT value FROM event_log WHERE resource = 'secrets'").fetchall()
    values = [json.loads(row[0]) for row in rows]
    return {value["metadata"].get("sealed", ":").partition(":")[0] for value in values}


async def write(server: ApiServerProcess, name: str) -> None:
    async with Rest(server) as rest:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": CANARY}}
        assert (await rest.post(SECRETS, body))[0] == 201
        assert (await rest.patch(f"{SECRETS}/{name}", {"stringData": {"more": "1"}}))[0] == 200


async def value(server: ApiServerProcess, name: str) -> str:
    async with Rest(server) as rest:
        _, found = await rest.get(f"{SECRETS}/{name}")
        return base64.b64decode(found["data"]["k"]).decode()


@pytest.mark.parametrize("from_the_start", [True, False])
async def test_no_file_holds_a_secrets_value(tmp_path: Path, from_the_start: bool) -> None:
    keys = tmp_path / "keys"
    first, second = key("first"), key("second")
    keys.write_text(first)
    home = tmp_path / "home"
    home.mkdir()
    encrypted = {"encryption_key_file": str(keys), "log_level": "debug"}
    server = ApiServerProcess(home, **(encrypted if from_the_start else {}))
    try:
        server.start()
        await write(server, "one")
        if not from_the_start:
            assert traces(home)
            server.stop()
            server.settings |= encrypted
            server.start()
        await Until().reached(lambda: sealed_with(home) == {"first"}, 20, "everything is sealed")
        assert await value(server, "one") == CANARY
        # kubectl shows sizes, not values.
        described = await asyncio.to_thread(server.kubectl, "describe", "secret", "one")
        assert CANARY not in described.stdout
        backup(f"sqlite:///{home / 'state.db'}", home / "state.backup")
        await Until().reached(lambda: traces(home) == [], 20, "no trace is left")

        # Rotation: the new key seals, the old one opens; then the old one goes.
        server.stop()
        keys.write_text(second + first)
        server.start()
        await Until().reached(lambda: sealed_with(home) == {"second"}, 20, "everything is sealed with the new key")
        await write(server, "two")
        server.stop()
        keys.write_text(second)
        server.start()
        assert [await value(server, name) for name in ("one", "two")] == [CANARY, CANARY]
        server.stop()
        assert traces(home) == []
        # Without the key nothing is served, and that is said.
        keys.write_text(key("other"))
        with pytest.raises(AssertionError, match="sealed with the key 'second', which the key file does not have"):
            server.start()
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
