"""A disk without room is told before anything is started."""

import shutil
from collections import namedtuple

import pytest

from lab import doctor, up
from lab.errors import LabError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage(1 << 40, 1 << 40, 3 << 20))


def test_a_full_disk_says_how_much_is_free_and_how_much_is_needed(full_disk, tmp_path):
    finding = doctor.disk(tmp_path / "not" / "there" / "yet")
    assert not finding.ok
    assert "3 MiB free" in finding.message
    assert "at least 1,024 MiB" in finding.way_out


def test_a_hollow_cluster_needs_less_but_is_refused_before_anything_is_made(full_disk, tmp_path):
    home = tmp_path / "cluster"
    with pytest.raises(LabError, match=r"too full: 3 MiB free for .*: free at least 64 MiB"):
        up.up(home, node_count=1, hollow_nodes=True, say=lambda _: None)
    assert not home.exists()
