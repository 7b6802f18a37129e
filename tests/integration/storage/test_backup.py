"""A back-up of a store that is in use, restored into the other kind of database."""

import sqlite3

import pytest

from storage import ABSENT, ANY, Delete, Key, Put, open_store
from storage.backup import backup, main, restore, verify
from storage.errors import WrongDatabase
from tests.support.postgres import find_binaries, run_postgres


@pytest.fixture(scope="module")
def postgres():
    if find_binaries() is None:
        pytest.skip("needs PostgreSQL's server programs")
    with run_postgres() as server:
        yield server


def key(name):
    return Key("configmaps", "default", name)


async def fill(url):
    """Three revisions of one object, another one, and one that is deleted; the store stays open."""
    store = await open_store(url)
    for number in range(3):
        await store.commit(Put(key("a"), ANY, b'{"n":%d,"v":"' % number, b'"}'))
    await store.commit(Put(key("b"), ABSENT, b'{"v":"', b'"}'), Put(key("gone"), ABSENT, b'{"v":"', b'"}'))
    await store.commit(Delete(key("gone"), ANY, b'{"v":"', b'"}'))
    return store


async def everything(store):
    page = await store.list("configmaps")
    return (
        store.cluster_id,
        await store.revision(),
        page.entries,
        [(event.type, event.key, event.revision, event.value) for event in await store.events(0)],
        await store.get(key("a"), at_revision=2),
    )


@pytest.mark.parametrize("way", ["sqlite-to-sqlite", "sqlite-to-postgres", "postgres-to-sqlite"])
async def test_a_backup_of_a_live_store_holds_everything_and_revisions_go_on(way, tmp_path, postgres):
    def url(kind, name):
        return f"sqlite:///{tmp_path / name}.db" if kind == "sqlite" else postgres.url()

    source, _, target = way.partition("-to-")
    live_url, restored_url, file = url(source, "live"), url(target, "restored"), tmp_path / "backup"
    live = await fill(live_url)
    assert backup(live_url, file) == 6
    assert file.stat().st_mode & 0o777 == 0o600
    before = await everything(live)
    # What is written afterwards is not in it.
    await live.commit(Put(key("late"), ABSENT, b'{"v":"', b'"}'))
    await live.close()

    assert restore(file, restored_url) == 6
    assert verify(restored_url) == (6, [])
    restored = await open_store(restored_url)
    assert await everything(restored) == before
    [event] = await restored.commit(Put(key("next"), ABSENT, b'{"v":"', b'"}'))
    assert event.revision == 7
    await restored.close()


async def test_nothing_is_overwritten(tmp_path):
    url, file = f"sqlite:///{tmp_path / 'live.db'}", tmp_path / "backup"
    store = await fill(url)
    backup(url, file)
    with pytest.raises(WrongDatabase, match="exists already"):
        backup(url, file)
    await store.close()
    with pytest.raises(WrongDatabase, match="is not empty"):
        restore(file, url)


async def test_a_damaged_store_is_told(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'live.db'}"
    await (await fill(url)).close()

    connection = sqlite3.connect(tmp_path / "live.db")
    connection.execute("DELETE FROM event_log WHERE revision = 3")
    connection.commit()
    connection.close()
    assert verify(url) == (6, ["1 heads without a log entry of the same key"])
    assert main(["verify", url]) == 1
    assert "damaged" in capsys.readouterr().out


def test_what_is_no_store_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "text").write_text("no database")
    for arguments in (["verify", f"sqlite:///{tmp_path / 'absent.db'}"], ["verify", f"sqlite:///{tmp_path / 'text'}"]):
        assert main(arguments) == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
