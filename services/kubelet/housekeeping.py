"""What a node does besides running pods: rotate logs, remove unused images, keep the weights of QoS classes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from machinery.api.quantity import parse_quantity
from machinery.component import logs
from services.kubelet import logs as container_logs
from services.kubelet import node_info
from services.kubelet.config import KubeletConfig
from services.kubelet.images import images_path
from services.kubelet.node import Node
from services.kubelet.pods import Pods
from services.kubelet.runtime import RuntimeFailure

log = logs.get("kubelet")

_LOG_SECONDS = 10.0
_IMAGE_SECONDS = 300.0
_QOS_SECONDS = 60.0  # as upstream
_IMAGE_AGE_SECONDS = 120.0  # an image just pulled is about to be used


async def every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do it again and again; what fails is tried again the next time."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except (RuntimeFailure, OSError) as error:
            log.warning("housekeeping failed, trying again", what=getattr(work, "__name__", ""), error=str(error))


class Housekeeping:
    """`run` it in a TaskGroup."""

    def __init__(self, config: KubeletConfig, node: Node, pods: Pods) -> None:
        self._config = config
        self._node = node
        self._pods = pods
        self._image_seen: dict[str, float] = {}
        self._looked = False  # for images, ever

    async def run(self) -> None:
        with contextlib.suppress(RuntimeFailure):  # then the first pass is the first look
            await self._note_images()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(every(_LOG_SECONDS, self.rotate_logs), name="log rotation")
            tasks.create_task(every(_IMAGE_SECONDS, self.collect_images), name="image garbage")
            tasks.create_task(every(_QOS_SECONDS, self.weigh_qos_classes), name="cgroups of QoS classes")

    async def weigh_qos_classes(self) -> None:
        """The cpu weights of the QoS classes follow pods that ended, and are put right if someone else changed them."""
        self._node.cgroups.set_qos_shares(self._pods.active(), again=True)

    # --- logs

    async def rotate_logs(self) -> None:
        """Move aside the logs that are too large, and have the runtime begin new ones."""
        limit = parse_quantity(self._config.container_log_max_size).value
        for worker in list(self._pods.workers.values()):
            for record in worker.runtime.running:
                path = Path(record.log_path)
                try:
                    size = os.stat(path).st_size if record.log_path else 0
                except FileNotFoundError:
                    continue
                if size > limit:
                    container_logs.rotate(path, self._config.container_log_max_files, datetime.now(UTC))
                    await self._node.runtime.reopen_log(record.id)

    # --- images

    async def collect_images(self, *, all_unused: bool = False) -> int:
        """Remove unused images, least recently used first, while the disk is too full (or all of them); bytes freed."""
        present = await self._note_images()
        total, available, _, _ = node_info.disk(await images_path(self._node.runtime, self._node.root))
        used_percent = 100 * (total - available) // max(1, total)
        wanted = (100 - self._config.image_gc_low_percent) * total // 100 - available
        if not all_unused and used_percent < self._config.image_gc_high_percent:
            return 0
        freed = 0
        for image_id, size in self._unused_images(present):
            if not all_unused and freed >= wanted:
                break
            await self._node.runtime.remove_image(image_id)
            freed += size
        log.info("unused images removed", bytes=freed)
        if not all_unused and freed < wanted:
            text = (
                f"Insufficient free disk space on the node's image filesystem ({used_percent}% of {total} bytes used). "
                f"Failed to free sufficient space by deleting unused images (freed {freed} bytes, {wanted} wanted)."
            )
            self._node.node_event("Warning", "FreeDiskSpaceFailed", text)
        return freed

    async def _note_images(self) -> list[cri.Image]:
        """Since when each image is known: what is there at the start has been there for long, as upstream takes it.

        The images.
        """
        now = self._node.clock() if self._looked else 0.0
        present = await self._node.runtime.images()
        self._image_seen = {image.id: self._image_seen.get(image.id, now) for image in present}
        self._looked = True
        return present

    def _unused_images(self, present: Iterable[cri.Image]) -> list[tuple[str, int]]:
        """(id, size) of the images that no container here uses, longest unused first."""
        now = self._node.clock()
        used = {
            reference
            for worker in self._pods.workers.values()
            for record in worker.runtime.containers
            for reference in (record.image, record.image_ref)
        }
        out = []
        for image in present:
            first_seen = self._image_seen[image.id]
            names = {image.id, *image.repo_tags, *image.repo_digests}
            last = self._node.images.last_used.get(image.id, first_seen)
            if image.pinned or names & used or now - first_seen < _IMAGE_AGE_SECONDS or "pause" in str(image.repo_tags):
                continue
            out.append((last, image.id, image.size))
        return [(image_id, size) for _, image_id, size in sorted(out)]
