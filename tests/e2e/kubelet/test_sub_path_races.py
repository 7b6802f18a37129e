"""A container swaps a directory for a link while the kubelet mounts below it (CVE-2017-1002101, CVE-2021-25741)."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from services.kubelet.volumes import mounting, sub_path
from services.kubelet.volumes.context import VolumeError

pytestmark = pytest.mark.root

ATTEMPTS = 400
_AT_FDCWD, _EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    """Swap two names at once, as an attacker would: there is no moment without either."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


@contextmanager
def swapping(*pairs: tuple[Path, Path]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            for pair in pairs:
                exchange(*pair)

    thread = threading.Thread(target=run, name="attacker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("path", "swapped"),
    [("d/below", "d"), ("d", "d"), ("d/below/new", "d/below"), ("within/below", "d"), ("d/new/newer", "d")],
)
def test_what_is_mounted_is_never_outside(tmp_path: Path, path: str, swapped: str) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    for place in (volume / "d" / "below", outside / "below"):
        place.mkdir(parents=True)
    (outside / "stolen").touch()
    (outside / "below" / "stolen").touch()
    (volume / "within").symlink_to("d")
    evil = volume / "evil"
    evil.symlink_to(outside)
    mounted = refused = 0
    with swapping((volume / swapped, evil)):
        for number in range(ATTEMPTS):
            target = tmp_path / "targets" / str(number)
            with suppress(VolumeError, OSError):
                sub_path.prepare(str(volume), path, target)
                mounted += 1
                try:
                    assert not (target / "stolen").exists(), f"{path} led outside after {number} attempts"
                finally:
                    mounting.unmount(str(target))
                continue
            refused += 1
    # Nothing was made outside either.
    assert sorted(found.name for found in outside.rglob("*")) == ["below", "stolen", "stolen"]
    assert mounted + refused == ATTEMPTS
    assert mounted
    shutil.rmtree(tmp_path / "targets", ignore_errors=True)
