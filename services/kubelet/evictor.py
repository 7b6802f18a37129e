"""Ends pods when the node runs out of memory, disk or process ids, or when they outgrow what they may store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from machinery.component import logs
from services.kubelet import disk_usage, eviction, lifecycle_metrics, node_info, pod_spec
from services.kubelet.config import KubeletConfig
from services.kubelet.container_config import LABEL_CONTAINER, LABEL_UID, pod_log_directory
from services.kubelet.disk_usage import PodDiskUsage
from services.kubelet.eviction import Breach, Signal, Use
from services.kubelet.images import images_path
from services.kubelet.node import Node
from services.kubelet.pod_worker import PodWorker
from services.kubelet.pods import Pods
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.status import Verdict

log = logs.get("kubelet")

_LOOK_SECONDS = 10.0
_CLEAN_UP_SECONDS = 30.0  # how long the end of an evicted pod is waited for
_PRESSURE_SECONDS = 300.0  # a condition stays this long after its signal is well again, so that it does not flap
_Layers = dict[str, dict[str, tuple[int, int]]]


class Evictor:
    """`run` it in a TaskGroup. `pressures` is what the node's status shows, and what new pods are refused for.

    `reclaim` frees what costs no pod and says how many bytes that were.
    """

    def __init__(self, config: KubeletConfig, node: Node, pods: Pods, reclaim: Callable[[], Awaitable[int]]) -> None:
        self._config = config
        self._node = node
        self._pods = pods
        self._reclaim = reclaim
        self._pressed_at: dict[str, float] = {}
        self._image_mount = ""

    def pressures(self) -> dict[str, bool]:
        """Which conditions hold."""
        now = time.monotonic()
        return {kind: now - at < _PRESSURE_SECONDS for kind, at in self._pressed_at.items()}

    def pressed(self) -> list[str]:
        """The conditions that hold."""
        return [kind for kind, on in self.pressures().items() if on]

    async def run(self) -> None:
        """Look at once; after an eviction look again as soon as the pod has ended, else every ten seconds."""
        while True:
            ended: list[PodWorker] = []
            try:
                ended = await self.evict()
            except (RuntimeFailure, OSError) as error:
                log.warning("what the node has left can not be told, trying again", error=str(error))
            if not ended:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLEAN_UP_SECONDS):
                    for worker in ended:
                        await worker.settled.wait()

    async def evict(self) -> list[PodWorker]:
        """Look at pods' own limits, then at the node: under pressure end one pod, after trying what costs no pod.

        The pods that are ended.
        """
        found = eviction.breaches(await self.signals(), self._config.eviction_hard)
        now = time.monotonic()
        for breach in found:
            self._pressed_at[breach.condition] = now
        ended = await self._evict_over_limits()
        if ended or not found:
            return ended
        breach = found[0]
        self._node.node_event("Warning", "EvictionThresholdMet", f"Attempting to reclaim {breach.resource}")
        if breach.condition == "disk" and await self._reclaim() > 0:
            return []
        return await self._evict_one(breach)

    async def signals(self) -> dict[str, Signal]:
        """What is left of memory, disk and process ids."""
        signals = {
            "memory.available": Signal(node_info.memory_available_bytes(), node_info.memory_bytes()),
            "pid.available": Signal(node_info.pids_max() - node_info.tasks(), node_info.pids_max()),
        }
        for name, path in (("nodefs", str(self._node.root)), ("imagefs", await self._images_path())):
            total, free, inodes, inodes_free = node_info.disk(path)
            signals[f"{name}.available"] = Signal(free, total)
            if inodes:
                signals[f"{name}.inodesFree"] = Signal(inodes_free, inodes)
        return signals

    async def _images_path(self) -> str:
        """Where the runtime keeps images; asked for once, as it stays where it is."""
        if not self._image_mount:
            self._image_mount = await images_path(self._node.runtime, self._node.root)
        return self._image_mount

    # --- pressure

    async def _evict_one(self, breach: Breach) -> list[PodWorker]:
        usage = await self._usage(breach.resource)
        for pod in eviction.rank(self._pods.active(), usage, breach.resource):
            worker = self._pods.workers.get(pod.metadata.uid or "")
            if worker is not None and not worker.settled.is_set():
                text = eviction.message(breach, pod, usage.get(worker.uid, eviction.NOTHING))
                self._end(worker, text, breach.signal, disruption=True)
                return [worker]
        return []

    async def _usage(self, resource: str) -> dict[str, Use]:
        """What each pod uses of the resource, by uid."""
        if resource == "memory":
            return await self._memory()
        if resource == "pids":
            found = await self._node.runtime.sandbox_stats()
            return {s.attributes.metadata.uid: Use(s.linux.process.process_count.value) for s in found}
        layers, usage = await self._writable_layers(), {}
        which = 1 if resource == "inodes" else 0
        for worker in self._active():
            disk = await self._disk_of(worker)
            containers = {name: amounts[which] for name, amounts in layers.get(worker.uid, {}).items()}
            total = disk.ephemeral[which] + sum(containers.values())
            for name, amounts in dict(disk.logs).items():
                containers[name] = containers.get(name, 0) + amounts[which]
            usage[worker.uid] = Use(total, {} if which else containers)
        return usage

    async def _memory(self) -> dict[str, Use]:
        by_pod: dict[str, dict[str, int]] = {}
        for item in await self._node.runtime.container_stats():
            labels = item.attributes.labels
            used = by_pod.setdefault(labels.get(LABEL_UID, ""), {})
            used[labels.get(LABEL_CONTAINER, "")] = item.memory.working_set_bytes.value
        return {uid: Use(sum(used.values()), used) for uid, used in by_pod.items()}

    def _active(self) -> list[PodWorker]:
        active = {pod.metadata.uid for pod in self._pods.active()}
        return [worker for uid, worker in self._pods.workers.items() if uid in active]

    async def _disk_of(self, worker: PodWorker) -> PodDiskUsage:
        logs_dir = Path(pod_log_directory(self._node.settings.log_root, worker.pod))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, disk_usage.measure, worker.pod, worker.volume_paths, logs_dir)

    async def _writable_layers(self) -> _Layers:
        """(bytes, inodes) of writable layers by pod and container."""
        out: _Layers = {}
        for item in await self._node.runtime.container_stats():
            labels, layer = item.attributes.labels, item.writable_layer
            used = out.setdefault(labels.get(LABEL_UID, ""), {})
            used[labels.get(LABEL_CONTAINER, "")] = layer.used_bytes.value, layer.inodes_used.value
        return out

    # --- limits of pods' own

    async def _evict_over_limits(self) -> list[PodWorker]:
        """End pods whose storage outgrew its own limits, whatever the node has left."""
        ended = []
        layers: _Layers | None = None
        for worker in self._active():
            signal, text = "emptydirfs.limit", await self._over_volume_limits(worker)
            if not text and disk_usage.ephemeral_limits(worker.pod):
                signal = "ephemeralpodfs.limit"
                layers = await self._writable_layers() if layers is None else layers
                sizes = {name: amounts[0] for name, amounts in layers.get(worker.uid, {}).items()}
                text = disk_usage.over_limit(worker.pod, await self._disk_of(worker), sizes)
            if text:
                self._end(worker, text, signal)
                ended.append(worker)
        return ended

    async def _over_volume_limits(self, worker: PodWorker) -> str:
        pod = worker.pod
        limited = [v.name for v in pod.spec.volumes or () if v.emptyDir and v.emptyDir.sizeLimit]
        if not limited:
            return ""
        root = self._node.volumes.pod_dir(worker.uid) / "volumes" / "kubernetes.io~empty-dir"
        loop = asyncio.get_running_loop()
        sizes = {n: (await loop.run_in_executor(None, disk_usage.tree, root / n))[0] for n in limited}
        return eviction.over_size_limit(pod, sizes)

    def _end(self, worker: PodWorker, text: str, signal: str, *, disruption: bool = False) -> None:
        """End a pod at once. Only one that is ended for the node's sake, not for its own, was disrupted."""
        lifecycle_metrics.evicted(signal)
        self._node.event(worker.pod, "Warning", "Evicted", text)
        log.warning("evicting a pod", pod=pod_spec.key(worker.pod), why=text)
        condition = {
            "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": text,
        }  # fmt: skip
        worker.end(Verdict("Evicted", text, condition if disruption else None), grace_seconds=0)
