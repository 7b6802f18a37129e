"""ListMetricDescriptors and ListPodSandboxMetrics: cAdvisor's figures by cAdvisor's names, for every container and for
each pod's network.

What a kernel does not count (pressure on cgroup v1, block I/O without the controller) is left out of a pod's metrics,
never reported as zero. Values are whole numbers because the CRI says so: seconds are cut, not rounded.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import cgroups, kernel, metric_readings
from cri import containerd_api as api
from cri.errors import CriError
from cri.metric_readings import Readings
from cri.runtime import Runtime
from cri.state import Container, Sandbox, now

_BASE = ("container", "id", "image", "name", "namespace", "pod")
_LABEL_NAMESPACE = "io.kubernetes.pod.namespace"
_LABEL_POD = "io.kubernetes.pod.name"
_LABEL_CONTAINER = "io.kubernetes.container.name"


class Metric(msgspec.Struct, frozen=True):
    """One metric: its help, whether it only grows, and its labels beyond those that all have."""

    help: str
    counter: bool = False
    labels: tuple[str, ...] = ()


_C = True
METRICS: dict[str, Metric] = {
    "container_blkio_device_usage_total": Metric("Blkio bytes", _C, ("device", "major", "minor", "operation")),
    "container_cpu_cfs_periods_total": Metric("Number of elapsed enforcement period intervals", _C),
    "container_cpu_cfs_throttled_periods_total": Metric("Number of throttled period intervals", _C),
    "container_cpu_cfs_throttled_seconds_total": Metric("Total time duration the container has been throttled", _C),
    "container_cpu_system_seconds_total": Metric("Cumulative system cpu time consumed in seconds", _C),
    "container_cpu_usage_seconds_total": Metric("Cumulative cpu time consumed in seconds", _C, ("cpu",)),
    "container_cpu_user_seconds_total": Metric("Cumulative user cpu time consumed in seconds", _C),
    "container_file_descriptors": Metric("Number of open file descriptors for the container"),
    "container_fs_inodes_free": Metric("Number of available inodes", labels=("device",)),
    "container_fs_inodes_total": Metric("Number of inodes", labels=("device",)),
    "container_fs_limit_bytes": Metric("Bytes that the container can consume on this filesystem", labels=("device",)),
    "container_fs_reads_bytes_total": Metric("Cumulative count of bytes read", _C, ("device",)),
    "container_fs_reads_total": Metric("Cumulative count of reads completed", _C, ("device",)),
    "container_fs_usage_bytes": Metric("Bytes consumed by the container on this filesystem", labels=("device",)),
    "container_fs_writes_bytes_total": Metric("Cumulative count of bytes written", _C, ("device",)),
    "container_fs_writes_total": Metric("Cumulative count of writes completed", _C, ("device",)),
    "container_hugetlb_max_usage_bytes": Metric("Maximum hugepage usage recorded", labels=("pagesize",)),
    "container_hugetlb_usage_bytes": Metric("Current hugepage usage", labels=("pagesize",)),
    "container_last_seen": Metric("Last time a container was seen by the exporter"),
    "container_memory_cache": Metric("Page cache memory in bytes"),
    "container_memory_failcnt": Metric("Number of times that memory usage hit its limit", _C),
    "container_memory_failures_total": Metric(
        "Cumulative count of memory allocation failures", _C, ("failure_type", "scope")
    ),
    "container_memory_kernel_usage": Metric("Kernel memory allocated, in bytes"),
    "container_memory_mapped_file": Metric("Size of memory mapped files in bytes"),
    "container_memory_max_usage_bytes": Metric("Maximum memory usage recorded in bytes"),
    "container_memory_rss": Metric("Size of anonymous memory in bytes"),
    "container_memory_swap": Metric("Swap usage in bytes"),
    "container_memory_usage_bytes": Metric("Memory usage in bytes, whenever it was last accessed"),
    "container_memory_working_set_bytes": Metric("Memory usage less the inactive page cache, in bytes"),
    "container_network_receive_bytes_total": Metric("Cumulative count of bytes received", _C, ("interface",)),
    "container_network_receive_errors_total": Metric("Cumulative count of errors while receiving", _C, ("interface",)),
    "container_network_receive_packets_dropped_total": Metric("Packets dropped while receiving", _C, ("interface",)),
    "container_network_receive_packets_total": Metric("Cumulative count of packets received", _C, ("interface",)),
    "container_network_transmit_bytes_total": Metric("Cumulative count of bytes transmitted", _C, ("interface",)),
    "container_network_transmit_errors_total": Metric("Cumulative count of errors while sending", _C, ("interface",)),
    "container_network_transmit_packets_dropped_total": Metric("Packets dropped while sending", _C, ("interface",)),
    "container_network_transmit_packets_total": Metric("Cumulative count of packets transmitted", _C, ("interface",)),
    "container_oom_events_total": Metric("Count of out of memory kills in the container", _C),
    "container_pressure_cpu_stalled_seconds_total": Metric("Time in which all tasks waited for cpu", _C),
    "container_pressure_cpu_waiting_seconds_total": Metric("Time in which a task waited for cpu", _C),
    "container_pressure_io_stalled_seconds_total": Metric("Time in which all tasks waited for I/O", _C),
    "container_pressure_io_waiting_seconds_total": Metric("Time in which a task waited for I/O", _C),
    "container_pressure_memory_stalled_seconds_total": Metric("Time in which all tasks waited for memory", _C),
    "container_pressure_memory_waiting_seconds_total": Metric("Time in which a task waited for memory", _C),
    "container_processes": Metric("Number of processes running inside the container"),
    "container_sockets": Metric("Number of open sockets for the container"),
    "container_spec_cpu_period": Metric("CPU period of the container, in microseconds"),
    "container_spec_cpu_quota": Metric("CPU quota of the container, in microseconds"),
    "container_spec_cpu_shares": Metric("CPU share of the container"),
    "container_spec_memory_limit_bytes": Metric("Memory limit for the container, 0 for none"),
    "container_spec_memory_reservation_limit_bytes": Metric("Memory reservation limit for the container, 0 for none"),
    "container_spec_memory_swap_limit_bytes": Metric("Memory and swap limit for the container, 0 for none"),
    "container_start_time_seconds": Metric("Start time of the container since unix epoch in seconds"),
    "container_threads": Metric("Number of threads running inside the container"),
    "container_threads_max": Metric("Maximum number of threads allowed inside the container, 0 for any number"),
    "container_ulimits_soft": Metric("Soft ulimit values for the container's first process", labels=("ulimit",)),
}  # fmt: skip

# Fields of a line of /proc/net/dev, after the interface's name.
_NETWORK_FIELDS = {
    "container_network_receive_bytes_total": 0,
    "container_network_receive_packets_total": 1,
    "container_network_receive_errors_total": 2,
    "container_network_receive_packets_dropped_total": 3,
    "container_network_transmit_bytes_total": 8,
    "container_network_transmit_packets_total": 9,
    "container_network_transmit_errors_total": 10,
    "container_network_transmit_packets_dropped_total": 11,
}
Sample = tuple[str, tuple[str, ...], int]
"""Name, values of the metric's own labels, value."""


def descriptors() -> list[cri.MetricDescriptor]:
    return [
        cri.MetricDescriptor(name=name, help=metric.help, label_keys=[*_BASE, *metric.labels])
        for name, metric in METRICS.items()
    ]


async def list_pod_sandbox_metrics(runtime: Runtime) -> cri.ListPodSandboxMetricsResponse:
    response = cri.ListPodSandboxMetricsResponse()
    snapshots = await runtime.images.snapshot_directory()
    for sandbox in runtime.store.sandboxes:
        if not sandbox.ready:
            continue
        pod = response.pod_metrics.add(pod_sandbox_id=sandbox.id)
        if sandbox.netns:
            table = await asyncio.to_thread(_network_table, sandbox.netns)
            base = ("", sandbox.config.linux.cgroup_parent, "", sandbox.id, *_pod_names(sandbox))
            pod.metrics.extend(_messages(network_samples(table), base))
        for container in runtime.store.containers_of(sandbox.id):
            if container.state != cri.CONTAINER_RUNNING:
                continue
            readings = await asyncio.to_thread(metric_readings.gather, container.status.pid)
            if readings is None:  # it ended meanwhile
                continue
            disk = await _disk_samples(runtime, container, snapshots)
            base = (_name(container), readings.cgroup, container.record.image_ref, container.id, *_pod_names(sandbox))
            samples = [*container_samples(readings, container.resources, container.status.started_at), *disk]
            pod.container_metrics.add(container_id=container.id, metrics=_messages(samples, base))
    return response


def _name(container: Container) -> str:
    return container.config.labels.get(_LABEL_CONTAINER, container.config.metadata.name)


def _pod_names(sandbox: Sandbox) -> tuple[str, str]:
    labels, meta = sandbox.config.labels, sandbox.config.metadata
    return labels.get(_LABEL_NAMESPACE, meta.namespace), labels.get(_LABEL_POD, meta.name)


def _messages(samples: Iterable[Sample], base: tuple[str, ...]) -> list[cri.Metric]:
    at = now()
    return [
        cri.Metric(
            name=name,
            timestamp=at,
            metric_type=cri.COUNTER if METRICS[name].counter else cri.GAUGE,
            label_values=[*base, *labels],
            value=cri.UInt64Value(value=max(0, value)),
        )
        for name, labels, value in samples
    ]


async def _disk_samples(runtime: Runtime, container: Container, directory: str) -> list[Sample]:
    """The file system that the writable layer is on, and what the layer takes of it."""
    request = api.snapshots.UsageRequest(snapshotter=runtime.config.snapshotter, key=container.id)
    try:
        used = (await runtime.containerd.snapshots.Usage(request)).size
        disk = await asyncio.to_thread(metric_readings.disk, directory)
    except (CriError, OSError):
        return []
    device = (disk.device,)
    return [
        ("container_fs_usage_bytes", device, used),
        ("container_fs_limit_bytes", device, disk.bytes_total),
        ("container_fs_inodes_total", device, disk.inodes_total),
        ("container_fs_inodes_free", device, disk.inodes_free),
    ]


def _network_table(netns: Path) -> str:
    def work() -> str:
        kernel.setns(str(netns), kernel.CLONE_NEWNET)
        return Path("/proc/thread-self/net/dev").read_text(encoding="ascii")

    try:
        return kernel.in_new_thread(work)
    except OSError:  # the sandbox is being stopped
        return ""


def network_samples(table: str) -> list[Sample]:
    """Of every interface but the loopback, from the text of /proc/net/dev."""
    samples: list[Sample] = []
    for name, fields in cgroups.interface_fields(table).items():
        if name != "lo":
            samples += [(metric, (name,), fields[at]) for metric, at in _NETWORK_FIELDS.items()]
    return samples


def container_samples(readings: Readings, limits: cri.LinuxContainerResources, started_at: int) -> list[Sample]:
    """A container's own samples; `started_at` in nanoseconds since 1970. What was not read is left out."""
    seconds = 1_000_000_000
    plain: dict[str, int | None] = {
        "container_cpu_cfs_periods_total": readings.cpu_periods,
        "container_cpu_cfs_throttled_periods_total": readings.cpu_throttled_periods,
        "container_cpu_cfs_throttled_seconds_total": _per(readings.cpu_throttled_ns, seconds),
        "container_cpu_system_seconds_total": _per(readings.cpu_system_ns, seconds),
        "container_cpu_user_seconds_total": _per(readings.cpu_user_ns, seconds),
        "container_file_descriptors": readings.descriptors,
        "container_last_seen": now() // seconds,
        "container_memory_cache": readings.memory_cache,
        "container_memory_failcnt": readings.memory_failures,
        "container_memory_kernel_usage": readings.memory_kernel,
        "container_memory_mapped_file": readings.memory_mapped,
        "container_memory_max_usage_bytes": readings.memory_peak,
        "container_memory_rss": readings.usage.memory_rss,
        "container_memory_swap": readings.memory_swap,
        "container_memory_usage_bytes": readings.usage.memory_usage,
        "container_memory_working_set_bytes": readings.usage.memory_working_set,
        "container_oom_events_total": readings.oom_kills,
        "container_processes": readings.processes,
        "container_sockets": readings.sockets,
        "container_spec_cpu_period": limits.cpu_period,
        "container_spec_cpu_quota": limits.cpu_quota if limits.cpu_quota > 0 else None,
        "container_spec_cpu_shares": limits.cpu_shares,
        "container_spec_memory_limit_bytes": limits.memory_limit_in_bytes,
        "container_spec_memory_reservation_limit_bytes": 0,
        "container_spec_memory_swap_limit_bytes": limits.memory_swap_limit_in_bytes,
        "container_start_time_seconds": started_at // seconds,
        "container_threads": readings.threads,
        "container_threads_max": readings.threads_max,
    }
    samples: list[Sample] = [(name, (), value) for name, value in plain.items() if value is not None]
    if readings.usage.cpu_nanoseconds is not None:
        samples.append(("container_cpu_usage_seconds_total", ("total",), readings.usage.cpu_nanoseconds // seconds))
    for kind, count in (("pgfault", readings.usage.page_faults), ("pgmajfault", readings.usage.major_page_faults)):
        if count is not None:
            samples += [
                ("container_memory_failures_total", (kind, scope), count) for scope in ("container", "hierarchy")
            ]
    for (what, name), stalled in readings.pressure_us.items():
        state = "stalled" if name == "full" else "waiting"
        samples.append((f"container_pressure_{what}_{state}_seconds_total", (), stalled // 1_000_000))
    samples += [("container_ulimits_soft", (name,), value) for name, value in readings.soft_limits.items()]
    for size, (current, peak) in readings.hugepages.items():
        samples.append(("container_hugetlb_usage_bytes", (size,), current))
        samples.append(("container_hugetlb_max_usage_bytes", (size,), peak))
    for item in readings.block_io:
        device = (item.device,)
        for operation, count in (("Read", item.read_bytes), ("Write", item.written_bytes)):
            where = (item.device, str(item.major), str(item.minor), operation)
            samples.append(("container_blkio_device_usage_total", where, count))
        samples += [
            ("container_fs_reads_bytes_total", device, item.read_bytes),
            ("container_fs_writes_bytes_total", device, item.written_bytes),
            ("container_fs_reads_total", device, item.reads),
            ("container_fs_writes_total", device, item.writes),
        ]
    return samples


def _per(value: int | None, unit: int) -> int | None:
    return None if value is None else value // unit
