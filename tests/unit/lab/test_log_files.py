import errno
import os
from pathlib import Path

from lab import log_files


def test_a_log_beyond_its_bound_is_kept_aside_and_its_writer_goes_on_at_its_beginning(tmp_path):
    path = tmp_path / "ingress.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        assert log_files.bound([path, path], 399) == [path]
        writer.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "ingress.log.1").read_bytes() == b"old\n" * 100
    assert log_files.bound([path], 399) == []


def test_what_was_kept_aside_is_replaced_so_that_there_are_never_more_than_two(tmp_path):
    path = tmp_path / "a.log"
    for turn in (b"first", b"second"):
        path.write_bytes(turn * 10)
        log_files.bound([path], 10)
    assert (tmp_path / "a.log.1").read_bytes() == b"second" * 10
    assert len(os.listdir(tmp_path)) == 2


def test_a_log_that_cannot_be_kept_is_cut_all_the_same(tmp_path, monkeypatch):
    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_files.shutil, "copyfile", full)
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 100)
    assert log_files.bound([path, Path("/nowhere/a.log")], 10) == [path]
    assert path.stat().st_size == 0
    assert os.listdir(tmp_path) == ["a.log"]
