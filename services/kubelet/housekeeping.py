"""What a node does besides running pods: rotate logs, remove unused images, evict pods under pressure."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from machinery.api.quantity import parse_quantity
from machinery.component import logs
from services.kubelet import disk_usage, eviction, node_info
from services.kubelet import logs as container_logs
from services.kubelet.config import KubeletConfig
from services.kubelet.container_config import LABEL_CONTAINER, LABEL_UID, pod_log_directory
from services.kubelet.eviction import Breach, Signal
from services.kubelet.node import Node
from services.kubelet.pods import Pods
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.status import Verdict

log = logs.get("kubelet")

_EVICTION_SECONDS = 10.0
_LOG_SECONDS = 10.0
_IMAGE_SECONDS = 300.0
_QOS_SECONDS = 60.0  # as upstream
_PRESSURE_SECONDS = 300.0  # a condition stays this long after its signal is well again, so that it does not flap
_IMAGE_AGE_SECONDS = 120.0  # an image just pulled is about to be used
_PID_MAX = Path("/proc/sys/kernel/pid_max")


class Housekeeping:
    """`run` it in a TaskGroup. `pressures` is what the node's status shows."""

    def __init__(self, config: KubeletConfig, node: Node, pods: Pods) -> None:
        self._config = config
        self._node = node
        self._pods = pods
        self._pressed_at: dict[str, float] = {}
        self._image_seen: dict[str, float] = {}

    def pressures(self) -> dict[str, bool]:
        """Which conditions hold."""
        now = time.monotonic()
        return {kind: now - at < _PRESSURE_SECONDS for kind, at in self._pressed_at.items()}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(_EVICTION_SECONDS, self.evict), name="eviction")
            tasks.create_task(self._every(_LOG_SECONDS, self.rotate_logs), name="log rotation")
            tasks.create_task(self._every(_IMAGE_SECONDS, self.collect_images), name="image garbage")
            tasks.create_task(self._every(_QOS_SECONDS, self.weigh_qos_classes), name="cgroups of QoS classes")

    async def _every(self, seconds: float, work) -> None:  # type: ignore[no-untyped-def]
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except (RuntimeFailure, OSError) as error:
                log.warning("housekeeping failed, trying again", what=work.__name__, error=str(error))

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
        file_systems = (await self._node.runtime.image_fs()).image_filesystems
        mount = file_systems[0].fs_id.mountpoint if file_systems else str(self._node.root)
        try:
            total, available, _, _ = node_info.disk(mount)
        except FileNotFoundError:  # the runtime's view of the machine need not be ours
            total, available, _, _ = node_info.disk(str(self._node.root))
        used_percent = 100 * (total - available) // max(1, total)
        wanted = (100 - self._config.image_gc_low_percent) * total // 100 - available
        if not all_unused and used_percent < self._config.image_gc_high_percent:
            return 0
        freed = 0
        for image_id, size in await self._unused_images():
            if not all_unused and freed >= wanted:
                break
            await self._node.runtime.remove_image(image_id)
            freed += size
        log.info("unused images removed", bytes=freed)
        return freed

    async def _unused_images(self) -> list[tuple[str, int]]:
        """(id, size) of the images that no container here uses, longest unused first."""
        now = self._node.clock()
        used = {
            reference
            for worker in self._pods.workers.values()
            for record in worker.runtime.containers
            for reference in (record.image, record.image_ref)
        }
        out = []
        for image in await self._node.runtime.images():
            first_seen = self._image_seen.setdefault(image.id, now)
            names = {image.id, *image.repo_tags, *image.repo_digests}
            last = self._node.images.last_used.get(image.id, first_seen)
            if image.pinned or names & used or now - first_seen < _IMAGE_AGE_SECONDS or "pause" in str(image.repo_tags):
                continue
            out.append((last, image.id, image.size))
        return [(image_id, size) for _, image_id, size in sorted(out)]

    # --- eviction

    async def evict(self) -> None:
        """Look at the signals; under pressure end one pod, after trying what costs no pod."""
        found = eviction.breaches(self.signals(), self._config.eviction_hard)
        now = time.monotonic()
        for breach in found:
            self._pressed_at[breach.condition] = now
        if found:
            if any(b.condition == "disk" for b in found) and await self.collect_images(all_unused=True) > 0:
                return
            await self._evict_one(found[0])
            return
        await self._evict_over_limits()

    def signals(self) -> dict[str, Signal]:
        """What is left of memory, disk and process ids."""
        bytes_total, bytes_free, inodes, inodes_free = node_info.disk(str(self._node.root))
        running = len([name for name in os.listdir("/proc") if name.isdigit()])
        pids = int(_PID_MAX.read_text())
        disk = Signal(bytes_free, bytes_total)
        signals = {
            "memory.available": Signal(node_info.memory_available_bytes(), node_info.memory_bytes()),
            "nodefs.available": disk,
            "imagefs.available": disk,
            "pid.available": Signal(pids - running, pids),
        }
        if inodes:
            signals["nodefs.inodesFree"] = Signal(inodes_free, inodes)
        return signals

    async def _evict_one(self, breach: Breach) -> None:
        usage = await self._usage(breach.resource)
        for pod in eviction.rank(self._pods.active(), usage, breach.resource):
            self._end(pod.metadata.uid or "", eviction.message(breach, pod, usage.get(pod.metadata.uid or "", 0)))
            return

    async def _usage(self, resource: str) -> dict[str, int]:
        """What each pod uses of the resource, by uid."""
        usage: dict[str, int] = {}
        for item in await self._node.runtime.container_stats():
            uid = item.attributes.labels.get(LABEL_UID, "")
            memory, disk = item.memory.working_set_bytes.value, item.writable_layer.used_bytes.value
            usage[uid] = usage.get(uid, 0) + (memory if resource == "memory" else disk)
        return usage

    async def _evict_over_limits(self) -> None:
        """End pods whose storage outgrew its own limits, whatever the node has left."""
        await self._evict_over_volume_limits()
        workers = [w for w in self._pods.workers.values() if disk_usage.ephemeral_limits(w.pod)]
        if not workers:
            return
        layers = await self._writable_layers()
        active = {pod.metadata.uid for pod in self._pods.active()}
        for worker in workers:
            if worker.uid not in active:
                continue
            logs = Path(pod_log_directory(self._node.settings.log_root, worker.pod))
            loop = asyncio.get_running_loop()
            usage = await loop.run_in_executor(None, disk_usage.measure, worker.pod, worker.volume_paths, logs)
            text = disk_usage.over_limit(worker.pod, usage, layers.get(worker.uid, {}))
            if text:
                self._end(worker.uid, text)

    async def _writable_layers(self) -> dict[str, dict[str, int]]:
        """Bytes of writable layers by pod and container."""
        out: dict[str, dict[str, int]] = {}
        for item in await self._node.runtime.container_stats():
            labels = item.attributes.labels
            used = out.setdefault(labels.get(LABEL_UID, ""), {})
            used[labels.get(LABEL_CONTAINER, "")] = item.writable_layer.used_bytes.value
        return out

    async def _evict_over_volume_limits(self) -> None:
        for pod in self._pods.active():
            limited = [v.name for v in pod.spec.volumes or () if v.emptyDir and v.emptyDir.sizeLimit]
            if not limited:
                continue
            root = self._node.volumes.pod_dir(pod.metadata.uid or "") / "volumes" / "kubernetes.io~empty-dir"
            loop = asyncio.get_running_loop()
            sizes = {n: (await loop.run_in_executor(None, disk_usage.tree, root / n))[0] for n in limited}
            text = eviction.over_size_limit(pod, sizes)
            if text:
                self._end(pod.metadata.uid or "", text)

    def _end(self, uid: str, text: str) -> None:
        worker = self._pods.workers.get(uid)
        if worker is None:
            return
        self._node.event(worker.pod, "Warning", "Evicted", text)
        condition = {
            "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": text,
        }  # fmt: skip
        worker.end(Verdict("Evicted", text, condition), grace_seconds=0)
