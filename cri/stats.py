"""ContainerStats, PodSandboxStats and their lists; what Prometheus reads is in `metrics`.

Figures are read from cgroup files and /proc when they are asked for; the rate of CPU use comes from the reading
before. A writable layer's size is containerd's, which measures it on demand.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

from cri_api.v1 import api_pb2 as cri

from cri import cgroups, kernel
from cri import containerd_api as api
from cri.cni import INTERFACE
from cri.errors import CriError, NotFound
from cri.runtime import Runtime
from cri.state import Container, Sandbox, labels_match, now

# Readings closer together than this give a rate of nothing but noise.
_RATE_INTERVAL_NS = 100_000_000
_previous: dict[str, tuple[int, int, int]] = {}


async def container_stats(runtime: Runtime, request: cri.ContainerStatsRequest) -> cri.ContainerStatsResponse:
    container = runtime.store.containers.get(request.container_id)
    if container.state != cri.CONTAINER_RUNNING:
        raise NotFound(f"container {container.id} is not running: it has no statistics")
    return cri.ContainerStatsResponse(stats=await _of_container(runtime, container))


async def list_container_stats(
    runtime: Runtime, request: cri.ListContainerStatsRequest
) -> cri.ListContainerStatsResponse:
    wanted = request.filter
    containers = [
        container
        for container in runtime.store.containers
        if (not wanted.id or container.id.startswith(wanted.id))
        and (not wanted.pod_sandbox_id or container.sandbox_id.startswith(wanted.pod_sandbox_id))
        and labels_match(wanted.label_selector, container.config.labels)
    ]
    _forget_gone(runtime)
    return cri.ListContainerStatsResponse(stats=await _of_containers(runtime, containers))


async def pod_sandbox_stats(runtime: Runtime, request: cri.PodSandboxStatsRequest) -> cri.PodSandboxStatsResponse:
    sandbox = runtime.store.sandboxes.get(request.pod_sandbox_id)
    if not sandbox.ready:
        raise NotFound(f"sandbox {sandbox.id} is not ready: it has no statistics")
    return cri.PodSandboxStatsResponse(stats=await _of_sandbox(runtime, sandbox))


async def list_pod_sandbox_stats(
    runtime: Runtime, request: cri.ListPodSandboxStatsRequest
) -> cri.ListPodSandboxStatsResponse:
    wanted = request.filter
    found = [
        sandbox
        for sandbox in runtime.store.sandboxes
        if sandbox.ready
        and (not wanted.id or sandbox.id.startswith(wanted.id))
        and labels_match(wanted.label_selector, sandbox.config.labels)
    ]
    return cri.ListPodSandboxStatsResponse(stats=[await _of_sandbox(runtime, sandbox) for sandbox in found])


async def _of_containers(runtime: Runtime, containers: Iterable[Container]) -> list[cri.ContainerStats]:
    running = [container for container in containers if container.state == cri.CONTAINER_RUNNING]
    gathered = await asyncio.gather(
        *(_of_container(runtime, container) for container in running), return_exceptions=True
    )
    # One that ended meanwhile has no statistics.
    return [item for item in gathered if isinstance(item, cri.ContainerStats)]


async def _of_container(runtime: Runtime, container: Container) -> cri.ContainerStats:
    result = cri.ContainerStats()
    attributes = result.attributes
    attributes.id = container.id
    attributes.metadata.CopyFrom(container.config.metadata)
    attributes.labels.update(container.config.labels)
    attributes.annotations.update(container.config.annotations)
    try:
        usage = await asyncio.to_thread(_usage_of, container.status.pid)
    except OSError as error:
        raise NotFound(f"container {container.id}: {error}") from error
    _fill(result.cpu, result.memory, usage, container.id)
    if usage.swap_usage is not None:
        result.swap.timestamp = now()
        result.swap.swap_usage_bytes.value = usage.swap_usage
        if usage.swap_available is not None:
            result.swap.swap_available_bytes.value = usage.swap_available
    await _fill_writable_layer(runtime, container, result.writable_layer)
    return result


def _usage_of(pid: int) -> cgroups.Usage:
    return cgroups.read(cgroups.paths_of(pid))


async def _fill_writable_layer(runtime: Runtime, container: Container, target: cri.FilesystemUsage) -> None:
    request = api.snapshots.UsageRequest(snapshotter=runtime.config.snapshotter, key=container.id)
    with contextlib.suppress(CriError):
        usage = await runtime.containerd.snapshots.Usage(request)
        target.timestamp = now()
        target.fs_id.mountpoint = await runtime.images.snapshot_directory()
        target.used_bytes.value = usage.size
        target.inodes_used.value = usage.inodes


def _fill(cpu: cri.CpuUsage, memory: cri.MemoryUsage, usage: cgroups.Usage, key: str) -> None:
    cpu.timestamp = memory.timestamp = now()
    if usage.cpu_nanoseconds is not None:
        cpu.usage_core_nano_seconds.value = usage.cpu_nanoseconds
        cpu.usage_nano_cores.value = _rate(key, cpu.timestamp, usage.cpu_nanoseconds)
    fields = {
        "working_set_bytes": usage.memory_working_set,
        "usage_bytes": usage.memory_usage,
        "rss_bytes": usage.memory_rss,
        "page_faults": usage.page_faults,
        "major_page_faults": usage.major_page_faults,
    }
    if usage.memory_limit is not None and usage.memory_working_set is not None:
        fields["available_bytes"] = max(0, usage.memory_limit - usage.memory_working_set)
    for name, value in fields.items():
        if value is not None:
            getattr(memory, name).value = value


def _rate(key: str, at: int, used: int) -> int:
    """Nanoseconds of CPU a second since the reading before; the last known rate when that was just now."""
    before = _previous.get(key)
    if before is None:
        _previous[key] = (at, used, 0)
        return 0
    elapsed = at - before[0]
    if elapsed < _RATE_INTERVAL_NS:
        return before[2]
    rate = max(0, (used - before[1]) * 1_000_000_000 // elapsed)
    _previous[key] = (at, used, rate)
    return rate


def _forget_gone(runtime: Runtime) -> None:
    for key in list(_previous):
        if runtime.store.containers.find(key) is None and runtime.store.sandboxes.find(key) is None:
            del _previous[key]


async def _of_sandbox(runtime: Runtime, sandbox: Sandbox) -> cri.PodSandboxStats:
    result = cri.PodSandboxStats()
    result.attributes.id = sandbox.id
    result.attributes.metadata.CopyFrom(sandbox.config.metadata)
    result.attributes.labels.update(sandbox.config.labels)
    result.attributes.annotations.update(sandbox.config.annotations)
    result.linux.containers.extend(await _of_containers(runtime, runtime.store.containers_of(sandbox.id)))
    parent = sandbox.config.linux.cgroup_parent
    if parent and not runtime.config.systemd_cgroup:
        usage = await asyncio.to_thread(cgroups.read, cgroups.paths_below(parent))
        _fill(result.linux.cpu, result.linux.memory, usage, sandbox.id)
        if usage.processes is not None:
            result.linux.process.timestamp = now()
            result.linux.process.process_count.value = usage.processes
    if sandbox.netns:
        with contextlib.suppress(OSError):
            _fill_network(result.linux.network, await asyncio.to_thread(_network_table, sandbox.netns))
    return result


def _network_table(netns: Path) -> str:
    def work() -> str:
        kernel.setns(str(netns), kernel.CLONE_NEWNET)
        return Path("/proc/thread-self/net/dev").read_text(encoding="ascii")

    return kernel.in_new_thread(work)


def _fill_network(target: cri.NetworkUsage, table: str) -> None:
    target.timestamp = now()
    for name, (rx, rx_errors, tx, tx_errors) in cgroups.interfaces(table).items():
        if name == "lo":
            continue
        usage = target.default_interface if name == INTERFACE else target.interfaces.add()
        usage.name = name
        usage.rx_bytes.value, usage.rx_errors.value = rx, rx_errors
        usage.tx_bytes.value, usage.tx_errors.value = tx, tx_errors
