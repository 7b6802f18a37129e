"""The commands about the state and its past, as somebody gives them who has read `--help`; and a state of the version
before this one."""

from __future__ import annotations

import asyncio
import datetime
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lab import pki, supervisor
from tests.support import lab_cluster
from tests.support.lab_cluster import LabCluster
from tests.support.torture import full_only


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    running = LabCluster(tmp_path_factory.mktemp("c"))
    try:
        running.cutaway("up", "--hollow", "--nodes", "1")
        yield running
    finally:
        running.cutaway("down", "--purge", check=False)


def refused(cluster: LabCluster, *arguments: str) -> str:
    """The one line that says why."""
    done = cluster.run_cutaway(*arguments)
    # As for `diff` elsewhere, 1 is an answer.
    assert done.returncode == (2 if arguments[0] == "diff" else 1), done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("cutaway: ")
    return line


def revision_of(cluster: LabCluster, name: str) -> int:
    return int(cluster.get("configmap", name)["metadata"]["resourceVersion"])


@pytest.mark.timeout(300)
def test_the_past_is_told_compared_forked_and_forgotten(cluster: LabCluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "configmap", "a", "--from-literal=k=1")
    first = revision_of(cluster, "a")
    cluster.kubectl("patch", "configmap", "a", "-p", '{"data":{"k":"2"}}')
    second = revision_of(cluster, "a")
    cluster.kubectl("create", "configmap", "b")

    told = cluster.cutaway("history", "configmap/a").splitlines()
    assert [line.split()[0] for line in told if not line.startswith(" " * 10)] == [str(second), str(first)]
    assert "kubernetes-admin" in told[0]
    assert told[1].strip() == '~ data.k: "1" -> "2"'
    changed = cluster.run_cutaway("diff", "configmap/a", str(first), "0")
    assert (changed.returncode, changed.stdout.strip()) == (1, '~ data.k: "1" -> "2"')
    assert cluster.run_cutaway("diff", "configmap/a", str(second), "0").returncode == 0
    everything = cluster.run_cutaway("diff", str(first), "0").stdout
    assert "~ configmaps default/a" in everything
    assert "+ configmaps default/b" in everything
    cluster.kubectl("delete", "configmap", "b")
    assert "(deleted)" in cluster.cutaway("history", "configmap/b").splitlines()[0]

    # What is wrong, and what would be right.
    assert "names no object" in refused(cluster, "history", "a")
    assert "doesn't have a resource type" in refused(cluster, "history", "cofnigmap/a")
    assert "configmap/none in namespace default has no history" in refused(cluster, "history", "configmap/none")
    assert "names no two revisions" in refused(cluster, "diff", "one", "two")
    assert str(second + 10**9) in refused(cluster, "diff", "configmap/a", str(second + 10**9), "0")
    assert "not empty" in refused(cluster, "fork", str(first), str(cluster.home))

    there = LabCluster(tmp_path / "then")
    try:
        cluster.cutaway("fork", str(first), str(there.home))
        assert there.get("configmap", "a")["data"] == {"k": "1"}
        there.kubectl("patch", "configmap", "a", "-p", '{"data":{"k":"other"}}')
        assert cluster.get("configmap", "a")["data"] == {"k": "2"}
    finally:
        there.cutaway("down", "--purge", check=False)

    assert "history begins" in cluster.cutaway("compact")
    assert "too old resource version" in refused(cluster, "diff", "configmap/a", str(first), "0")
    assert cluster.get("configmap", "a")["data"] == {"k": "2"}
    assert "whole" in cluster.cutaway("verify")


def near_its_end(cluster: LabCluster, name: str) -> bytes:
    """Replace a certificate by one that says the same and ends within the day; the new one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pki, "LEAF_DAYS", 1)
        patch.setattr(pki, "BACKDATE", datetime.timedelta(days=30))
        pki.Pki(cluster.home / "pki").renew(name)
    return (cluster.home / "pki" / f"{name}.crt").read_bytes()


def pids(cluster: LabCluster) -> dict[str, int]:
    return {name: row["pid"] for name, row in cluster.status().items()}


async def test_certificates_are_renewed_before_they_end(cluster: LabCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the supervisor, twice a day; whoever has one that was renewed is started anew, and nobody else."""
    before = await asyncio.to_thread(pids, cluster)
    ending = near_its_end(cluster, "scheduler")
    [told] = [
        line for line in (await asyncio.to_thread(cluster.cutaway, "certs")).splitlines() if line.endswith("  due")
    ]
    assert told.split()[3] == "scheduler"

    monkeypatch.setattr(supervisor, "RENEWAL_SECONDS", 0.2)
    renewing = asyncio.create_task(supervisor.Supervisor(cluster.home)._renew_certificates())
    try:
        file = cluster.home / "pki" / "scheduler.crt"
        await asyncio.to_thread(
            lab_cluster.eventually, lambda: file.read_bytes() != ending, what="the certificate is renewed"
        )
        # One of its kind is renewed once, and the next look finds nothing to do.
        await asyncio.to_thread(
            lab_cluster.eventually, lambda: pids(cluster)["scheduler"] != before["scheduler"], what="it is started anew"
        )
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
    assert "due" not in await asyncio.to_thread(cluster.cutaway, "certs")
    await asyncio.to_thread(
        lab_cluster.eventually,
        lambda: all(row["health"] == "ok" for row in cluster.status().values()),
        what="all are healthy",
    )
    after = await asyncio.to_thread(pids, cluster)
    assert {name for name in before if before[name] != after[name]} == {"scheduler"}
    await asyncio.to_thread(cluster.kubectl, "run", "after-renewal", "--image=web:1")
    await asyncio.to_thread(cluster.kubectl, "wait", "--for=condition=Ready", "pod/after-renewal", "--timeout=60s")


@pytest.mark.torture
@full_only
@pytest.mark.timeout(300)
def test_all_certificates_are_renewed_on_demand(cluster: LabCluster) -> None:
    before = pids(cluster)
    said = cluster.cutaway("certs", "--renew")
    assert "certificates renewed" in said.splitlines()[-1]
    assert [
        line for line in cluster.cutaway("certs").splitlines() if line.split()[0] not in ("364", "365", "3649")
    ] == []
    after = pids(cluster)
    assert not [name for name in before if before[name] == after[name]]
    assert "ok" in cluster.kubectl("get", "--raw", "/readyz")


@pytest.mark.timeout(300)
def test_a_back_up_that_is_none_changes_nothing(cluster: LabCluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "configmap", "kept")
    seen = revision_of(cluster, "kept")
    file, short = tmp_path / "state.backup", tmp_path / "short"
    assert str(file) in cluster.cutaway("backup", str(file))
    assert file.stat().st_mode & 0o077 == 0
    assert "exists already" in refused(cluster, "backup", str(file))
    assert f"there is no folder {tmp_path}/absent" in refused(cluster, "backup", str(tmp_path / "absent" / "b"))
    short.write_bytes(file.read_bytes()[:20_000])
    for bad in (short, tmp_path / "absent"):
        refused(cluster, "restore", str(bad))
    assert revision_of(cluster, "kept") == seen
    assert [path.name for path in cluster.home.glob("state-*")] == []


@pytest.mark.timeout(300)
def test_a_state_of_the_version_before_goes_on(cluster: LabCluster) -> None:
    cluster.kubectl("create", "configmap", "old")
    seen = revision_of(cluster, "old")
    cluster.cutaway("down")
    with closing(sqlite3.connect(cluster.home / "state.db")) as connection:
        for statement in (
            "ALTER TABLE event_log DROP COLUMN author",
            "DROP TABLE gap",
            "UPDATE meta SET value = '1' WHERE key = 'schema_version'",
        ):
            connection.execute(statement)
        connection.commit()
    cluster.cutaway("up")
    assert revision_of(cluster, "old") == seen
    cluster.kubectl("create", "configmap", "new")
    assert revision_of(cluster, "new") > seen
    assert "kubernetes-admin" in cluster.cutaway("history", "configmap/new")
    assert "whole" in cluster.cutaway("verify")
