"""Secrets at rest: nothing readable in the database, and every key that is kept opens."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from services.apiserver.config import ApiServerConfig
from services.apiserver.encryption import KeyFileError, SealedStore, Sealer, key_name
from services.apiserver.service import Core
from storage import open_store
from storage.errors import Corrupt
from storage.store import Key
from tests.support.apiserver_core import CoreClient

CANARY = "canary-8d1f2c"
ONE, TWO = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))


def key_file(directory: Path, text: str) -> str:
    path = directory / "keys"
    path.write_text(text)
    return str(path)


def assert_hidden(directory: Path) -> None:
    """The canary is in no file of the database, neither plain nor in base64."""
    hidden = (CANARY.encode(), base64.b64encode(CANARY.encode()))
    for path in directory.glob("state.db*"):
        content = path.read_bytes()
        assert not any(text in content for text in hidden), path


async def opened(directory: Path, keys: str) -> tuple[CoreClient, SealedStore]:
    inner = await open_store(f"sqlite:///{directory / 'state.db'}")
    store = SealedStore(inner, Sealer.from_file(key_file(directory, keys)))
    core = Core(ApiServerConfig(), store)  # type: ignore[arg-type]
    await core.start()
    return CoreClient(core), store


async def test_the_key_named_identity_seals_nothing_and_the_others_open(tmp_path: Path) -> None:
    key = Key("secrets", "default", "s")
    tail = b'","x":1}}'
    plain = b'{"metadata":{"resourceVersion":"1' + tail
    bare = Sealer.from_file(key_file(tmp_path, f"identity:\none: {ONE}\n"))
    sealing = Sealer.from_file(key_file(tmp_path, f"one: {ONE}\nidentity:\n"))
    sealed = plain.replace(tail, sealing.seal(key, tail))
    assert bare.seal(key, tail) == tail
    assert bare.open(key, sealed) == plain
    assert (key_name(plain), key_name(sealed)) == ("", "one")
    assert [bare.is_current(plain), bare.is_current(sealed)] == [True, False]
    assert [sealing.is_current(plain), sealing.is_current(sealed)] == [False, True]


async def test_a_secret_is_nowhere_in_the_files_and_is_answered(tmp_path: Path) -> None:
    client, store = await opened(tmp_path, f"one: {ONE}\n")
    await client.create("namespaces", {"metadata": {"name": "default"}})
    secret = {"metadata": {"name": "s"}, "stringData": {"k": CANARY}}
    made = await client.create("secrets", secret, "default")
    assert base64.b64decode(made["data"]["k"]).decode() == CANARY
    await client.patch("secrets", "s", {"metadata": {"labels": {"a": "b"}}}, "default")
    then = await client.get("secrets", "s", "default", at_revision=int(made["metadata"]["resourceVersion"]))
    assert then == made
    await store.close()
    assert_hidden(tmp_path)


async def test_a_new_key_seals_anew_and_the_old_one_may_go(tmp_path: Path) -> None:
    client, store = await opened(tmp_path, f"one: {ONE}")
    await client.create("namespaces", {"metadata": {"name": "default"}})
    made = await client.create("secrets", {"metadata": {"name": "s"}, "stringData": {"k": CANARY}}, "default")
    await store.close()
    client, store = await opened(tmp_path, f"# rotated\ntwo: {TWO}\none: {ONE}")
    assert (await client.get("secrets", "s", "default"))["data"] == made["data"]
    assert await store.seal_anew() == 1
    assert await store.seal_anew() == 0
    await store.close()
    client, store = await opened(tmp_path, f"two: {TWO}")
    assert (await client.get("secrets", "s", "default"))["data"] == made["data"]
    await store.close()


async def test_a_missing_key_and_a_moved_value_are_corruption(tmp_path: Path) -> None:
    sealer = Sealer([("one", os.urandom(32))])
    key = Key("secrets", "default", "s")
    head = b'{"apiVersion":"v1","kind":"Secret","metadata":{"resourceVersion":"7'
    value = head + sealer.seal(key, b'","name":"s"},"data":{}}')
    assert sealer.open(key, value) == head + b'","name":"s"},"data":{}}'
    with pytest.raises(Corrupt):
        sealer.open(Key("secrets", "default", "other"), value)
    with pytest.raises(Corrupt, match="'one'"):
        Sealer([("two", os.urandom(32))]).open(key, value)


async def test_sealed_secrets_are_not_served_without_their_keys(tmp_path: Path) -> None:
    client, store = await opened(tmp_path, f"one: {ONE}")
    await client.create("namespaces", {"metadata": {"name": "default"}})
    await client.create("secrets", {"metadata": {"name": "s"}}, "default")
    await store.close()
    plain = await open_store(f"sqlite:///{tmp_path / 'state.db'}")
    with pytest.raises(Corrupt, match="encryption_key_file"):
        await Core(ApiServerConfig(), plain).start()
    await plain.close()


@pytest.mark.parametrize("text", ["", "one", "one: !!", "one: YWJj", f"bad name: {ONE}"])
def test_a_key_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyFileError):
        Sealer.from_file(key_file(tmp_path, text))
