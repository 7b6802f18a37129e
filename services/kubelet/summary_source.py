"""Where the figures of `/stats/summary` come from: /proc, the runtime, the pods' directories. Read when asked."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as cri

from protos.cutaway.v1 import kubelet_pb2
from services.kubelet import disk_usage, node_info
from services.kubelet.container_config import LABEL_UID, pod_log_directory
from services.kubelet.disk_usage import DiskUsage, FsUsage
from services.kubelet.node import Node
from services.kubelet.pod_worker import PodWorker
from services.kubelet.pods import Pods
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.stats import StatsCollector
from services.kubelet.summary import NodeFigures, PodFigures, rfc3339, summary

_NANO = 1_000_000_000


class SummarySource:
    """Gathers one summary at a time."""

    def __init__(self, node: Node, pods: Pods, stats: StatsCollector) -> None:
        self._node = node
        self._pods = pods
        self._stats = stats
        self._disks = DiskUsage(time.monotonic)

    async def summary(self, *, only_cpu_and_memory: bool = False) -> dict[str, Any]:
        """The body of the answer."""
        containers, sandboxes = await self._runtime_stats()
        by_uid: dict[str, list[cri.ContainerStats]] = {}
        for item in containers:
            by_uid.setdefault(item.attributes.labels.get(LABEL_UID, ""), []).append(item)
        pods = []
        for uid, worker in list(self._pods.workers.items()):
            if uid in by_uid:
                pods.append(await self._pod(worker, by_uid[uid], sandboxes.get(uid), walk=not only_cpu_and_memory))
        self._disks.keep(self._pods.workers)
        node = await self._node_figures()
        return summary(node, pods, datetime.now(UTC), only_cpu_and_memory=only_cpu_and_memory)

    async def _runtime_stats(self) -> tuple[list[cri.ContainerStats], dict[str, cri.PodSandboxStats]]:
        """Of containers, and of sandboxes by pod where the runtime has those."""
        runtime = self._node.runtime
        try:
            sandboxes = await runtime.sandbox_stats()
        except RuntimeFailure:
            return await runtime.container_stats(), {}
        found = [item for sandbox in sandboxes for item in sandbox.linux.containers]
        if not found:
            found = await runtime.container_stats()
        return found, {sandbox.attributes.metadata.uid: sandbox for sandbox in sandboxes}

    async def _pod(
        self, worker: PodWorker, items: list[cri.ContainerStats], sandbox: cri.PodSandboxStats | None, *, walk: bool
    ) -> PodFigures:
        pod, meta = worker.pod, worker.pod.metadata
        started = {record.id: record.started_at for record in worker.runtime.containers}
        disk = disk_usage.PodDiskUsage()
        if walk:
            logs = Path(pod_log_directory(self._node.settings.log_root, pod))
            disk = await self._disks.of(pod, worker.volume_paths, logs)
        return PodFigures(
            meta.namespace or "",
            meta.name or "",
            worker.uid,
            worker.status.get("startTime", ""),
            [(item, _rfc3339_of(started.get(item.attributes.id, 0))) for item in items],
            {item.attributes.id: self._stats.rate_of(item) for item in items},
            sandbox,
            disk,
        )

    async def _node_figures(self) -> NodeFigures:
        image_fs, container_fs = await self._runtime_fs()
        interfaces = _interfaces()
        return NodeFigures(
            name=self._node.name,
            booted_at=_booted_at(),
            usage=self._stats.node_usage(),
            memory_total_bytes=node_info.memory_bytes(),
            file_system=disk_usage.of_file_system(str(self._node.root)),
            image_fs=image_fs,
            container_fs=container_fs,
            pids_max=node_info.pids_max(),
            pids=node_info.tasks(),
            swap=_swap(),
            interfaces=interfaces,
            default_interface=_default_interface() or next(iter(interfaces), ""),
            kubelet=_own_usage(),
        )

    async def _runtime_fs(self) -> tuple[FsUsage | None, FsUsage | None]:
        """The file systems of images and of containers' writable layers, with what those take of them."""
        try:
            answer = await self._node.runtime.image_fs()
        except RuntimeFailure:
            return None, None
        containers = getattr(answer, "container_filesystems", ()) or answer.image_filesystems
        return _runtime_file_system(answer.image_filesystems), _runtime_file_system(containers)


def _runtime_file_system(found: Any) -> FsUsage | None:
    if not found:
        return None
    first = found[0]
    try:
        total, available, inodes, free = node_info.disk(first.fs_id.mountpoint)
    except OSError:  # the runtime's view of the machine need not be ours
        total, available, inodes, free = 0, 0, 0, 0
    return FsUsage(first.used_bytes.value, first.inodes_used.value, total, available, inodes, free)


def _rfc3339_of(nanoseconds: int) -> str:
    return rfc3339(datetime.fromtimestamp(nanoseconds / _NANO, UTC)) if nanoseconds else ""


def _booted_at() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _swap() -> tuple[int, int] | None:
    total, free = node_info.swap_bytes()
    return (free, total - free) if total else None


def _interfaces() -> dict[str, tuple[int, int, int, int]]:
    out = {}
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        # A pod's end of a pair is the pod's, and is told there.
        if name.strip() != "lo" and not name.strip().startswith("veth"):
            out[name.strip()] = (numbers[0], numbers[2], numbers[8], numbers[10])
    return out


def _default_interface() -> str:
    """The interface of the default route."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000":
            return words[0]
    return ""


def _own_usage() -> kubelet_pb2.Usage:
    """This process."""
    used = os.times()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return kubelet_pb2.Usage(
        cpu_usage_core_nanoseconds=int((used.user + used.system) * _NANO),
        memory_working_set_bytes=resident,
        memory_usage_bytes=resident,
        memory_rss_bytes=resident,
    )
