"""One command at a time changes a cluster; who dies leaves no lock."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab import turns
from lab.errors import LabError

HOLD = """
import sys
from pathlib import Path
from lab import turns
with turns.of_cluster(Path(sys.argv[1]), print):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the turn until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "mine\n"
        yield process
        process.kill()


def test_who_comes_second_waits_and_is_told_for_whom(other, tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.4)
    said = []
    refused = pytest.raises(LabError, match=rf"another cutaway \(pid {other.pid}\) has been changing this cluster")
    with refused, turns.of_cluster(tmp_path, said.append):
        pass
    assert said == [f"waiting for another cutaway (pid {other.pid}), which is changing this cluster"]


def test_a_killed_command_leaves_no_lock(other, tmp_path):
    other.kill()
    other.wait()
    with turns.of_cluster(tmp_path, print), turns.of_cluster(tmp_path, print):
        assert (tmp_path / "lock").read_text()


def test_a_folder_that_goes_while_it_is_entered_is_made_again(tmp_path, monkeypatch):
    home, make, made = tmp_path / "home", Path.mkdir, []

    def mkdir(path, **how):
        make(path, **how)
        if path == home and not made:
            home.rmdir()
        made.append(path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with turns.of_cluster(home, print):
        assert (home / "lock").read_text()
    assert not home.exists()


def test_a_folder_that_another_has_begun_in_stays(tmp_path, monkeypatch):
    home, remove = tmp_path / "home", Path.unlink

    def unlink(path, **how):
        remove(path, **how)
        path.touch()

    with turns.of_cluster(home, print):
        monkeypatch.setattr(Path, "unlink", unlink)
    assert (home / "lock").exists()


def test_only_one_chooses_addresses(monkeypatch):
    monkeypatch.setattr(turns, "WAIT_SECONDS", 1.2)
    asked = []
    monkeypatch.setattr(turns.select, "select", lambda *_: asked.append(1))
    with turns.of_choosing():
        with turns.of_choosing():
            pass
        assert asked
    asked.clear()
    with turns.of_choosing():
        assert not asked


def test_a_command_that_makes_nothing_leaves_no_folder(tmp_path):
    home = tmp_path / "cluster"
    with turns.of_cluster(home, print):
        pass
    assert not home.exists()
