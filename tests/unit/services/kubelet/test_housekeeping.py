"""Which images go when the disk is full, and which logs are begun anew."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as cri

from services.kubelet import node_info
from services.kubelet.config import KubeletConfig
from services.kubelet.housekeeping import Housekeeping

GI = 1 << 30


class Node:
    """As much of a node as housekeeping touches, over a disk of 100 GiB."""

    def __init__(self, path: Path, used_gi: int) -> None:
        self.root = path
        self.used = used_gi * GI
        self.present = {
            name: cri.Image(id=name, repo_tags=[f"example.com/{name}:1"], size=2 * GI)
            for name in ("old", "older", "young", "used", "pinned", "pause")
        }
        self.present["pinned"].pinned = True
        self.now = 1000.0
        self.images = SimpleNamespace(last_used={"old": 500.0, "older": 100.0})
        self.events: list[tuple[str, str, str]] = []
        self.reopened: list[str] = []
        self.runtime = self

    def clock(self) -> float:
        return self.now

    def node_event(self, *event: str) -> None:
        self.events.append(event)  # type: ignore[arg-type]

    def disk(self, _path: str) -> tuple[int, int, int, int]:
        return 100 * GI, 100 * GI - self.used, 0, 0

    async def image_fs(self) -> cri.ImageFsInfoResponse:
        return cri.ImageFsInfoResponse()

    async def list_images(self) -> list[cri.Image]:
        return list(self.present.values())

    async def remove_image(self, image_id: str) -> None:
        self.used -= self.present.pop(image_id).size

    async def reopen_log(self, container_id: str) -> None:
        self.reopened.append(container_id)


def made(node: Node, monkeypatch: pytest.MonkeyPatch, records: list[Any] | None = None) -> Housekeeping:
    monkeypatch.setattr(node_info, "disk", node.disk)
    runtime = SimpleNamespace(
        image_fs=node.image_fs, images=node.list_images, remove_image=node.remove_image, reopen_log=node.reopen_log
    )
    containers = [SimpleNamespace(image="example.com/used:1", image_ref="used")]
    worker = SimpleNamespace(runtime=SimpleNamespace(containers=containers, running=records or []))
    parts = SimpleNamespace(
        runtime=runtime, images=node.images, clock=node.clock, root=node.root, node_event=node.node_event
    )
    config = KubeletConfig(container_log_max_size="1Ki")
    return Housekeeping(config, parts, SimpleNamespace(workers={"u": worker}))  # type: ignore[arg-type]


async def test_the_longest_unused_images_go_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, used_gi=84)
    housekeeping = made(node, monkeypatch)
    assert await housekeeping.collect_images() == 0, "85 percent is the mark"
    node.present["new"] = cri.Image(id="new", repo_tags=["example.com/new:1"], size=2 * GI)
    node.used = 85 * GI
    assert await housekeeping.collect_images() == 6 * GI
    assert sorted(node.present) == ["new", "pause", "pinned", "used"]
    assert node.events == []


async def test_the_first_image_of_a_node_that_had_none_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, used_gi=10)
    node.present.clear()
    housekeeping = made(node, monkeypatch)
    assert await housekeeping.collect_images() == 0
    node.present["new"] = cri.Image(id="new", repo_tags=["example.com/new:1"], size=2 * GI)
    node.used = 95 * GI
    assert await housekeeping.collect_images() == 0
    assert sorted(node.present) == ["new"]


async def test_too_little_found_to_remove_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, used_gi=95)
    housekeeping = made(node, monkeypatch)
    assert await housekeeping.collect_images() == 6 * GI
    ((kind, reason, message),) = node.events
    assert (kind, reason) == ("Warning", "FreeDiskSpaceFailed")
    assert "(95% of" in message


async def test_a_log_over_its_size_is_put_aside_and_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = tmp_path / "large.log", tmp_path / "small.log"
    large.write_text("x" * 1025)
    small.write_text("x" * 1024)
    records = [SimpleNamespace(id=path.stem, log_path=str(path)) for path in (large, small, tmp_path / "gone.log")]
    node = Node(tmp_path, used_gi=1)
    await made(node, monkeypatch, records).rotate_logs()
    assert node.reopened == ["large"]
    assert not large.exists()
    assert len([name for name in os.listdir(tmp_path) if name.startswith("large.log.")]) == 1
    assert small.exists()
