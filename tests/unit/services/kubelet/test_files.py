"""Volumes' files, logs and links, on a real file system."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from lightkube.models import core_v1, meta_v1

from services.kubelet import logs
from services.kubelet.volumes import atomic_writer, sub_path
from services.kubelet.volumes.atomic_writer import FileContent, UnsafePath
from services.kubelet.volumes.context import VolumeError
from services.kubelet.volumes.manager import Volumes


def files(**content: str) -> dict[str, FileContent]:
    return {name: FileContent(text.encode()) for name, text in content.items()}


def test_files_change_all_at_once_and_old_ones_go(tmp_path: Path) -> None:
    assert atomic_writer.write(tmp_path, files(a="1", b="2"))
    first = os.readlink(tmp_path / "..data")
    assert not atomic_writer.write(tmp_path, files(a="1", b="2"))
    assert os.readlink(tmp_path / "..data") == first
    assert atomic_writer.write(tmp_path, files(b="3"))
    assert (tmp_path / "b").read_text() == "3"
    assert not (tmp_path / "a").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["..data", os.readlink(tmp_path / "..data"), "b"])


def test_nested_paths_and_modes(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, {"d/e": FileContent(b"x", 0o400)})
    assert (tmp_path / "d" / "e").read_bytes() == b"x"
    assert (tmp_path / "d" / "e").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "..x", ""])
def test_names_that_leave_the_volume_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        atomic_writer.write(tmp_path, {path: FileContent(b"")})


@pytest.mark.parametrize("path", ["/etc", "a/../b", ".."])
def test_sub_paths_that_leave_are_refused(path: str) -> None:
    with pytest.raises(VolumeError):
        sub_path.check(path)


LOG = b"""2026-01-01T00:00:01.000000000Z stdout F one
2026-01-01T00:00:02.000000000Z stderr F two
2026-01-01T00:00:03.000000000Z stdout P thr
2026-01-01T00:00:03.100000000Z stdout F ee
2026-01-01T00:00:04.000000000Z stdout F four
"""


async def read(path: Path, **options: object) -> bytes:
    return b"".join([chunk async for chunk in logs.read_log(path, logs.LogOptions(**options), lambda: False)])


async def test_reading_a_log_with_every_option(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(LOG)
    assert await read(path) == b"one\ntwo\nthree\nfour\n"
    assert await read(path, tail_lines=1) == b"four\n"
    assert await read(path, tail_lines=0) == b""
    assert await read(path, tail_lines=99) == b"one\ntwo\nthree\nfour\n"
    assert await read(path, limit_bytes=5) == b"one\nt"
    assert await read(path, stream="Stderr") == b"two\n"
    assert await read(path, since="2026-01-01T00:00:03.05Z") == b"ee\nfour\n"
    assert await read(path, since="2026-01-01T01:00:04+01:00") == b"four\n"
    assert (await read(path, timestamps=True, tail_lines=1)).startswith(b"2026-01-01T00:00:04.000000000Z four")


async def test_following_a_log_across_its_rotation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(LOG)
    running = [True]
    got: list[bytes] = []

    async def follow() -> None:
        async for chunk in logs.read_log(path, logs.LogOptions(follow=True, tail_lines=1), lambda: running[0]):
            got.append(chunk)

    task = asyncio.create_task(follow())
    while not got:  # noqa: ASYNC110 - the reader tells nobody
        await asyncio.sleep(0)
    logs.rotate(path, 5, datetime(2026, 1, 1, tzinfo=UTC))
    path.write_bytes(b"2026-01-01T00:00:05.000000000Z stdout F five\n")
    while len(got) < 2:  # noqa: ASYNC110 - the reader tells nobody
        await asyncio.sleep(0.01)
    running[0] = False
    await asyncio.wait_for(task, 5)
    assert b"".join(got) == b"four\nfive\n"
    assert (tmp_path / "0.log.20260101-000000").exists()


def test_rotation_keeps_so_many_files(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    for second in range(6):
        path.write_bytes(LOG)
        logs.rotate(path, 3, datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC))
    path.write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 3


def test_the_tail_of_a_large_log(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(b"2026-01-01T00:00:00Z stdout F %d\n" % n for n in range(20_000)))
    assert logs.tail_text(path, 3, 2048) == "19997\n19998\n19999\n"


@pytest.mark.parametrize(
    "source",
    [
        {"gitRepo": core_v1.GitRepoVolumeSource(repository="https://example.com/x.git")},
        {"glusterfs": core_v1.GlusterfsVolumeSource(endpoints="e", path="p")},
        {"flexVolume": core_v1.FlexVolumeSource(driver="d")},
    ],
    ids=lambda source: next(iter(source)),
)
async def test_a_volume_that_would_run_programs_of_the_node_is_refused(tmp_path: Path, source: dict[str, Any]) -> None:
    """gitRepo ran git, and its hooks, as root on the node (CVE-2024-10220)."""
    volumes = Volumes(tmp_path, cast("Any", None))
    pod = core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name="p", namespace="n", uid="u"),
        spec=core_v1.PodSpec(containers=[], volumes=[core_v1.Volume(name="v", **source)]),
    )
    with pytest.raises(VolumeError, match=f'volume "v": type {next(iter(source))} is not supported'):
        await volumes.set_up(pod, cast("Any", None))
