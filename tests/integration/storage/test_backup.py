"""A back-up of a store that is in use, restored into the other kind of database."""

import asyncio
import sqlite3
import time

import pytest
from sqlalchemy import create_engine, func, make_url, select

from storage import ABSENT, ANY, Delete, Key, Put, migrations, open_store
from storage.backup import AHEAD, REVISIONS_PER_SECOND, backup, main, restore
from storage.errors import Compacted, FutureRevision, WrongDatabase
from storage.schema import APPLICATION_ID, counter, event_log
from storage.snapshot import reader
from storage.verify import newest_seen, verify
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

    held, until = restore(file, restored_url)
    assert held == 6
    assert until >= 6 + AHEAD
    assert verify(restored_url) == (until, [])
    restored = await open_store(restored_url)
    assert await everything(restored) == before
    [event] = await restored.commit(Put(key("next"), ABSENT, b'{"v":"', b'"}'))
    assert event.revision == until + 1
    await restored.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_revisions_of_a_lost_future_are_expired_and_never_given_out_again(kind, tmp_path, postgres):
    def url(name):
        return f"sqlite:///{tmp_path / name}.db" if kind == "sqlite" else postgres.url()

    live, file = await fill(url("live")), tmp_path / "backup"
    backup(live._database.url.render_as_string() if kind == "postgres" else url("live"), file)
    await live.commit(Put(key("lost"), ABSENT, b'{"v":"', b'"}'))
    await live.close()
    lives = []
    for age in (0, 1, 3600):
        target = url(f"life-{age}")
        _, until = restore(file, target, seen=7, clock=lambda age=age: time.time() + age)
        store = await open_store(target)
        # What was known before the back-up goes on without a list; what came after it does not.
        following = aiter(store.follow(6))
        [event] = await store.commit(Put(key("new"), ABSENT, b'{"v":"', b'"}'))
        assert [seen.revision for seen in await anext(following)] == [event.revision] == [until + 1]
        for revision in (7, 8, until - 1):
            with pytest.raises(Compacted):
                await store.events(revision, limit=1) if revision < until - 1 else await store.get(key("a"), revision)
            with pytest.raises(Compacted):
                await store.list("configmaps", at_revision=revision)
        assert [entry.key.name for entry in (await store.list("configmaps", at_revision=until)).entries] == ["a", "b"]
        assert len(await store.history(key("a"))) == 3
        # Compaction passes over what was skipped, and the past that it leaves is whole.
        await store.compact(await store.revision())
        assert [event.revision for event in await store.history(key("a"))] == [3]
        lives.append(event.revision)
        await store.close()
    # Another life from the same file began later than anything the one before it could have written.
    assert lives[1] - lives[0] >= REVISIONS_PER_SECOND
    assert lives == sorted(lives)


async def test_a_margin_and_a_seen_revision_are_kept(tmp_path):
    url, file = f"sqlite:///{tmp_path / 'live.db'}", tmp_path / "backup"
    await (await fill(url)).close()
    backup(url, file)
    assert restore(file, f"sqlite:///{tmp_path / 'one.db'}", ahead=5, seen=100, clock=lambda: 0.0) == (6, 105)
    assert newest_seen(f"sqlite:///{tmp_path / 'one.db'}") == 105
    assert newest_seen(f"sqlite:///{tmp_path / 'absent.db'}") == 0
    with pytest.raises(WrongDatabase, match="ahead of its back-up by at least 1"):
        restore(file, f"sqlite:///{tmp_path / 'two.db'}", ahead=0)
    assert not (tmp_path / "two.db").exists()
    # A copy of a copy that was restored: the way back is as far.
    again = tmp_path / "again"
    backup(f"sqlite:///{tmp_path / 'one.db'}", again)
    assert restore(again, f"sqlite:///{tmp_path / 'three.db'}", ahead=5, clock=lambda: 0.0) == (105, 110)


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


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_live_store_is_judged_as_of_one_moment(kind, tmp_path, postgres):
    url = f"sqlite:///{tmp_path / 'live.db'}" if kind == "sqlite" else postgres.url()
    live = await fill(url)
    with reader(make_url(url)) as connection:
        counted = connection.execute(select(counter.c.revision)).scalar_one()
        await live.commit(Put(key("late"), ABSENT, b'{"v":"', b'"}'))
        # What came after the counter was read is not there for the log either.
        assert connection.execute(select(func.max(event_log.c.revision))).scalar_one() == counted == 6
    assert verify(url) == (7, [])
    await live.close()


async def test_a_long_copy_of_a_store_that_is_written_to_is_of_one_moment_and_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.backup.PAGES_MAX", 4)
    url, file, said = f"sqlite:///{tmp_path / 'live.db'}", tmp_path / "backup", []
    live = await fill(url)
    await live.commit(*(Put(key(f"large{n}"), ABSENT, b'{"v":"' + b"x" * 8000, b'"}') for n in range(50)))
    loop = asyncio.get_running_loop()

    def say(what):
        said.append(what)
        # Each step of the copy finds that the store has gone on.
        writing = live.commit(Put(key("meanwhile"), ANY, b'{"v":"', b'"}'))
        asyncio.run_coroutine_threadsafe(writing, loop).result(10)

    assert await asyncio.to_thread(backup, url, file, say=say) == 56
    copying = [what for what in said if what.startswith("copying")]
    assert len(copying) > 5
    assert copying[-1] == "copying: 100 %"
    assert verify(f"sqlite:///{file}") == (56, [])
    assert await live.revision() == 56 + len(said)
    await live.close()


def test_what_is_no_store_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "text").write_text("no database")
    for arguments in (["verify", f"sqlite:///{tmp_path / 'absent.db'}"], ["verify", f"sqlite:///{tmp_path / 'text'}"]):
        assert main(arguments) == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_back_up_of_an_older_version_is_brought_to_the_present(kind, tmp_path, postgres):
    file = tmp_path / "old.backup"
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.close()
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        migrations.upgrade(connection, 0, "0001")
        for statement in (
            "INSERT INTO object VALUES ('configmaps', 'default', 'a', 1, 1, 0, false)",
            "INSERT INTO event_log VALUES (1, 1, 'configmaps', 'default', 'a', 1, 0, 0, 1.0, 'o', CAST('{}' AS BLOB))",
            "INSERT INTO counter VALUES (1, 1, 1.0)",
            "INSERT INTO meta VALUES ('cluster_id', 'one'), ('schema_version', '1')",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    before = file.read_bytes()
    url = f"sqlite:///{tmp_path / 'new.db'}" if kind == "sqlite" else postgres.url()
    held, _ = restore(file, url)
    assert held == 1
    assert file.read_bytes() == before
    store = await open_store(url, cluster_id="one")
    [event] = await store.commit(Put(key("b"), ABSENT, b"{", b"}", author="jane"))
    assert [entry.key.name for entry in (await store.list("configmaps")).entries] == ["a", "b"]
    assert event.author == "jane"
    await store.close()


async def test_a_back_up_of_a_newer_version_or_a_cut_off_one_changes_nothing(tmp_path, capsys):
    url, file = f"sqlite:///{tmp_path / 'live.db'}", tmp_path / "backup"
    await (await fill(url)).close()
    backup(url, file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    connection.close()
    short = tmp_path / "short"
    short.write_bytes(file.read_bytes()[:5000])
    for bad, why in ((file, "schema 99"), (short, "malformed"), (tmp_path / "absent", "does not exist")):
        target = tmp_path / f"{bad.name}.db"
        assert main(["restore", str(bad), f"sqlite:///{target}"]) == 1
        [line] = capsys.readouterr().err.strip().splitlines()
        assert why in line
        assert not target.exists()


async def test_a_copy_as_of_a_revision_is_what_the_store_was_then(tmp_path, postgres):
    url = postgres.url()
    store = await open_store(url)
    pods = [Key("pods", "n", f"p{number}") for number in range(5)]
    for turn in range(60):
        pod = pods[turn % 5]
        await store.commit(
            Delete(pod, ANY, b"", b"") if turn % 11 == 10 else Put(pod, ANY, b"%d:" % turn, b"", epoch=turn)
        )
        await store.commit(Put(Key("leases", "n", "l"), ANY, b"", b""))
    await store.compact(20)
    # Leases are kept for less: as of 50 nothing is known of them.
    await store._compact("leases", 100)
    for revision in (20, 50, 77, 119, 120):
        file = tmp_path / f"{revision}.backup"
        assert backup(url, file, at_revision=revision) == revision
        target = f"sqlite:///{tmp_path}/{revision}.db"
        _, until = restore(file, target)
        assert verify(target) == (until, [])
        forked = await open_store(target)
        assert (await forked.list("pods")).entries == (await store.list("pods", at_revision=revision)).entries
        assert len((await forked.list("leases")).entries) == (revision >= 100)
        for pod in pods:
            then = [event for event in await store.history(pod) if event.revision <= revision]
            assert list(await forked.history(pod)) == then
        [event] = await forked.commit(Put(pods[0], ANY, b"", b""))
        assert event.revision == until + 1 > 120
        await forked.close()
    for revision, error in ((19, Compacted), (121, FutureRevision)):
        with pytest.raises(error):
            backup(url, tmp_path / "no.backup", at_revision=revision)
    assert not (tmp_path / "no.backup").exists()
    await store.close()
