"""The commands about the state and its past, as somebody gives them who has read `--help`; and a state of the version
before this one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.lab_cluster import LabCluster


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
    assert done.returncode == 1, done.stdout + done.stderr
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
    assert '"none" not found' in refused(cluster, "history", "configmap/none")
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


@pytest.mark.timeout(300)
def test_a_back_up_that_is_none_changes_nothing(cluster: LabCluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "configmap", "kept")
    seen = revision_of(cluster, "kept")
    file, short = tmp_path / "state.backup", tmp_path / "short"
    assert str(file) in cluster.cutaway("backup", str(file))
    assert file.stat().st_mode & 0o077 == 0
    assert "exists already" in refused(cluster, "backup", str(file))
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
