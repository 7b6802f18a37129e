"""Secrets are sealed in a cluster's files without anybody having asked for it; a command exchanges their key."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cluster as clusters
from lab import components, secret_keys
from tests.support.lab_cluster import LabCluster

CANARY = "canary-77ab01"


def traces(home: Path) -> list[Path]:
    """The files below that hold the value, plain or as it stands in the object."""
    wanted = (CANARY.encode(), base64.b64encode(CANARY.encode()))
    files = (path for path in home.rglob("*") if path.is_file())
    return [path for path in files if any(text in path.read_bytes() for text in wanted)]


def value(cluster: LabCluster) -> str:
    return base64.b64decode(cluster.get("secret", "s")["data"]["k"]).decode()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LabCluster]:
    running = LabCluster(tmp_path / "home")
    yield running
    running.cutaway("down", "--purge", check=False)


def test_a_cluster_that_has_no_key_gets_one_and_its_back_up_is_of_use_only_with_the_key(
    cluster: LabCluster, tmp_path: Path
) -> None:
    keys = cluster.home / "pki" / components.ENCRYPTION_KEYS
    keys.parent.mkdir(parents=True)
    # As a cluster of several masters is that was made before there were keys.
    keys.write_text(f"{secret_keys.IDENTITY}:\n")
    cluster.cutaway("up", "--hollow", "--nodes", "1")
    cluster.kubectl("create", "secret", "generic", "s", f"--from-literal=k={CANARY}")
    assert traces(cluster.home)
    assert cluster.run_cutaway("secrets", "status").returncode == 1

    said = cluster.cutaway("secrets", "rotate-key")
    [first] = secret_keys.names(clusters.require(cluster.home))
    assert first in said
    assert first in cluster.cutaway("secrets", "status")
    assert value(cluster) == CANARY
    assert traces(cluster.home) == []
    assert keys.stat().st_mode & 0o077 == 0

    # A back-up that is older than the key is opened with the retired one; without any it is refused.
    backup = tmp_path / "state.backup"
    assert first in cluster.cutaway("backup", str(backup))
    cluster.cutaway("secrets", "rotate-key")
    retired = secret_keys.retired(clusters.require(cluster.home))
    elsewhere = retired.rename(tmp_path / "kept.keys")
    refused = cluster.run_cutaway("restore", str(backup))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"sealed with the key {first}" in refused.stderr
    cluster.cutaway("restore", str(backup), "--keys", str(elsewhere))
    assert value(cluster) == CANARY
    # What `restore` keeps of the state before is sealed as well.
    assert traces(cluster.home) == []


def test_a_new_cluster_has_a_key(tmp_path: Path) -> None:
    keys = tmp_path / components.ENCRYPTION_KEYS
    assert secret_keys.ensure(keys)
    assert not secret_keys.ensure(keys)
    assert keys.stat().st_mode & 0o777 == 0o600
    [line] = secret_keys.lines(keys)
    assert len(base64.b64decode(line.partition(":")[2])) == 32
