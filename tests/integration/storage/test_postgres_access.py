"""A Postgres that wants TLS and a password, and that has only so many connections."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import ANY, Key, Put, open_store, postgres
from storage.backup import backup
from storage.errors import Unavailable, WrongDatabase
from storage.verify import verify
from tests.support.apiserver_process import free_port
from tests.support.pki import Pki
from tests.support.postgres import PostgresServer, find_binaries, run_postgres

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs"),
]

CONNECTIONS_MAX = postgres.WRITERS_MAX + postgres.READERS_MAX + 2
WORD = "of-this-test-only"


def put(name: str) -> Put:
    return Put(Key("pods", "default", name), ANY, b"", b"x" * 500)


class Guarded:
    """A server that takes nobody from the network without TLS and a password."""

    def __init__(self, server: PostgresServer, pki: Pki, directory: Path) -> None:
        self.server = server
        self.pki = pki
        self.database = server.url().partition("@/")[2].partition("?")[0]
        self.word_file = directory / "pgpass"
        self.write_word(WORD)

    def write_word(self, word: str) -> None:
        self.word_file.write_text(f"127.0.0.1:*:*:keeper:{word}\n")
        self.word_file.chmod(0o600)

    def set_word(self, word: str) -> None:
        with self.server.connect() as connection:
            connection.execute(f"ALTER ROLE keeper PASSWORD '{word}'")

    def url(self, **more: str) -> str:
        options = {"sslmode": "verify-full", "sslrootcert": str(self.pki.ca_file), "passfile": str(self.word_file)}
        query = "&".join(f"{name}={value}" for name, value in {**options, **more}.items())
        return f"postgresql://keeper@127.0.0.1:{self.server.port}/{self.database}?{query}"

    def connections(self) -> list[bool]:
        """One a connection of ours: whether it is over TLS."""
        query = (
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
            "WHERE datname = %s AND application_name = 'cutaway'"
        )
        with self.server.connect() as connection:
            return [bool(row[0]) for row in connection.execute(query, [self.database])]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    pki = Pki(directory / "pki")
    serving = pki.server("postgres")
    settings = {"listen_addresses": "127.0.0.1", "password_encryption": "scram-sha-256", "max_connections": "30"}
    with run_postgres(settings, port=free_port()) as server:
        with server.connect() as connection:
            if connection.execute("SHOW ssl_library").fetchone() == ("",):
                pytest.skip("this PostgreSQL was built without TLS")
        for name, source in (("server.crt", serving.cert_file), ("server.key", serving.key_file)):
            target = server.data / name
            target.write_bytes(Path(source).read_bytes())
            target.chmod(0o600)
            if os.getuid() == 0:
                account = pwd.getpwnam("postgres")
                os.chown(target, account.pw_uid, account.pw_gid)
        (server.data / "pg_hba.conf").write_text("local all all trust\nhostssl all keeper 127.0.0.1/32 scram-sha-256\n")
        with server.connect() as connection:
            connection.execute("ALTER SYSTEM SET ssl = on")
            connection.execute(f"CREATE ROLE keeper LOGIN PASSWORD '{WORD}'")
            connection.execute("SELECT pg_reload_conf()")
        made = Guarded(server, pki, directory)
        with server.connect() as connection:
            connection.execute(f"ALTER DATABASE {made.database} OWNER TO keeper")
        yield made


async def test_every_connection_is_encrypted_checked_and_one_of_few(guarded: Guarded, tmp_path: Path) -> None:
    store = await open_store(guarded.url())
    other = await open_store(guarded.url())
    try:
        seen = asyncio.Event()

        async def follow() -> None:
            async for batch in other.follow(0):
                if batch[-1].revision >= 50:
                    seen.set()

        following = asyncio.create_task(follow())
        reads = [store.list("pods") for _ in range(100)]
        await asyncio.gather(*(store.commit(put(f"p{n}")) for n in range(50)), *reads, store.newest(), other.newest())
        async with asyncio.timeout(20):
            await seen.wait()
        following.cancel()
        encrypted = guarded.connections()
        assert all(encrypted), "a connection is in the clear"
        assert 2 < len(encrypted) <= 2 * CONNECTIONS_MAX
    finally:
        await store.close()
        await other.close()
    # The commands that copy a store take the same URL.
    assert backup(guarded.url(), tmp_path / "copy") == 50
    assert verify(guarded.url()) == (50, [])


async def test_a_server_that_is_not_the_one_meant_is_not_trusted(guarded: Guarded, tmp_path: Path) -> None:
    stranger = Pki(tmp_path / "stranger", "another-ca")
    with pytest.raises(Unavailable, match="certificate verify failed") as refused:
        await open_store(guarded.url(sslrootcert=str(stranger.ca_file)))
    assert "\n" not in str(refused.value)
    with pytest.raises(Unavailable, match="no encryption"):
        await open_store(guarded.url(sslmode="disable"))


async def test_a_server_of_an_older_version_is_refused(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded.server.connect() as connection:
        version = connection.info.server_version
    monkeypatch.setattr(postgres, "_SERVER_VERSION_MIN", version + 10000)
    with pytest.raises(
        WrongDatabase, match=rf"is PostgreSQL {version // 10000}; {version // 10000 + 1} or later is needed"
    ):
        await open_store(guarded.url())


async def test_a_password_is_read_anew_for_each_connection_and_never_told(guarded: Guarded) -> None:
    store = await open_store(guarded.url())
    try:
        await store.commit(put("before"))
        guarded.set_word("another-word")
        with guarded.server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keeper'")
        with pytest.raises(Unavailable, match="password authentication failed") as refused:
            await store.commit(put("refused"))
        assert WORD not in str(refused.value)
        guarded.write_word("another-word")
        await store.commit(put("after"))
    finally:
        await store.close()
        guarded.set_word(WORD)
        guarded.write_word(WORD)


async def test_a_password_file_that_others_can_read_is_told(guarded: Guarded) -> None:
    guarded.word_file.chmod(0o644)
    try:
        with pytest.raises(Unavailable, match=r"no password .*/pgpass .*0600"):
            await open_store(guarded.url())
    finally:
        guarded.word_file.chmod(0o600)


async def test_a_server_without_a_free_connection_is_told_and_waited_for(guarded: Guarded) -> None:
    store = await open_store(guarded.url())
    try:
        await store.commit(put("a"))
        with guarded.server.connect() as connection:
            connection.execute("ALTER ROLE keeper CONNECTION LIMIT 0")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keeper'")
            with pytest.raises(Unavailable, match="too many connections"):
                await store.commit(put("b"))
            connection.execute("ALTER ROLE keeper CONNECTION LIMIT -1")
        await store.commit(put("c"))
        assert await store.get(Key("pods", "default", "c")) is not None
    finally:
        await store.close()
