"""Whose turn it is to change something: one command at a time changes a cluster, and one at a time chooses addresses.

Neither lock outlives the process that holds it, however it ends, so none is ever stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from lab.errors import LabError
from lab.progress import Say

WAIT_SECONDS = 120.0
_LOOK_SECONDS = 0.1
# An address of the abstract kind: no file of it can be left behind, every user sees the same one, and it belongs to the
# network namespace, as the ports and links do that are chosen.
_CHOOSING = "\0cutaway/choosing-addresses"
# Folders that this process has the turn of: what changes a cluster may be made of parts that do.
_ours: set[Path] = set()


@contextlib.contextmanager
def of_cluster(home: Path, say: Say) -> Iterator[None]:
    """While another `cutaway` changes the cluster of this folder, wait for it. Raises LabError if it goes on for
    WAIT_SECONDS."""
    if home in _ours:
        yield
        return
    path = home / "lock"
    with contextlib.ExitStack() as held:
        taken: list[TextIO] = []

        def take() -> bool:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                file = held.enter_context(path.open("a+"))
            except FileNotFoundError:  # who had the turn has just removed the folder
                return False
            if _locked(file) and _is_still_there(path, file):
                taken.append(file)
            else:
                file.close()
            return bool(taken)

        _wait(take, say, lambda: _holder(path))
        taken[0].truncate(0)
        taken[0].write(str(os.getpid()))
        taken[0].flush()
        _ours.add(home)
        try:
            yield
        finally:
            _ours.remove(home)
            if home.is_dir() and [each.name for each in home.iterdir()] == [path.name]:
                # Nothing came of it: the folder is as it was.
                path.unlink()
                with contextlib.suppress(OSError):  # who waited has begun in it
                    home.rmdir()


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_there(path: Path, file: TextIO) -> bool:
    """Whether the file is the one of this name: who had it before may have removed the folder."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        pid = path.read_text().strip()
    except FileNotFoundError:
        pid = ""
    return f"another cutaway (pid {pid})" if pid else "another cutaway"


def _wait(take: Callable[[], bool], say: Say, holder: Callable[[], str]) -> None:
    for look in range(int(WAIT_SECONDS / _LOOK_SECONDS)):
        if take():
            return
        if look == 1:
            say(f"waiting for {holder()}, which is changing this cluster")
        select.select([], [], [], _LOOK_SECONDS)
    raise LabError(
        f"{holder()} has been changing this cluster for {WAIT_SECONDS:.0f} s", "end it if it hangs, then try again"
    )


@contextlib.contextmanager
def of_choosing() -> Iterator[None]:
    """Between looking which addresses are free and taking them: so that two clusters that are made at once differ.

    Who waits in vain goes on: what is taken is then told by whoever listens there.
    """
    with socket.socket(socket.AF_UNIX) as mine:
        for _ in range(int(WAIT_SECONDS / _LOOK_SECONDS / 4)):
            try:
                mine.bind(_CHOOSING)
                break
            except OSError:
                select.select([], [], [], _LOOK_SECONDS)
        yield
