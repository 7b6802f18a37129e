"""Usage in the forms that Kubernetes' tools read.

`/stats/summary` (JSON: the Summary of k8s.io/kubelet/pkg/apis/stats/v1alpha1), `/metrics/resource` (Prometheus text).
Pure: `summary_source` gathers. A figure that nobody could read is left out, never told as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cri_api.v1 import api_pb2 as cri

from protos.cutaway.v1 import kubelet_pb2
from services.kubelet.container_config import LABEL_CONTAINER
from services.kubelet.disk_usage import FsUsage, PodDiskUsage

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """The node as a whole."""

    name: str
    booted_at: float  # seconds since the epoch
    usage: kubelet_pb2.Usage
    memory_total_bytes: int
    file_system: FsUsage
    image_fs: FsUsage | None = None
    container_fs: FsUsage | None = None
    pids_max: int = 0
    pids: int = 0
    swap: tuple[int, int] | None = None  # (bytes available, bytes used); None without swap
    interfaces: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)  # rx, errors, tx, errors
    default_interface: str = ""
    kubelet: kubelet_pb2.Usage | None = None


@dataclass(frozen=True, slots=True)
class PodFigures:
    """One pod. `sandbox` is None where the runtime has no figures of pods as a whole."""

    namespace: str
    name: str
    uid: str
    started: str
    containers: Sequence[tuple[cri.ContainerStats, str]]  # and when it started, RFC 3339
    rates: Mapping[str, int]  # nanocores by container id, for a runtime that tells none
    sandbox: cri.PodSandboxStats | None = None
    disk: PodDiskUsage = field(default_factory=PodDiskUsage)


def summary(node: NodeFigures, pods: Sequence[PodFigures], now: datetime, *, only_cpu_and_memory: bool = False) -> Json:
    """The whole answer."""
    time = rfc3339(now)
    whole, each = _node(node, time), [_pod(pod, node, time) for pod in pods]
    if not only_cpu_and_memory:
        return {"node": whole, "pods": each}
    kept = ("nodeName", "podRef", "name", "startTime", "cpu", "memory", "containers", "systemContainers")
    return {
        "node": {key: value for key, value in whole.items() if key in kept},
        "pods": [
            {
                **{key: value for key, value in pod.items() if key in kept},
                "containers": [{k: v for k, v in c.items() if k in kept} for c in pod["containers"]],
            }
            for pod in each
        ],
    }


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _node(node: NodeFigures, time: str) -> Json:
    booted = rfc3339(datetime.fromtimestamp(node.booted_at, UTC))
    memory = _memory(node.usage, time)
    memory["availableBytes"] = max(0, node.memory_total_bytes - node.usage.memory_working_set_bytes)
    out: Json = {
        "nodeName": node.name,
        "systemContainers": [],
        "startTime": booted,
        "cpu": _cpu(node.usage, time),
        "memory": memory,
        "network": _node_network(node, time),
        "fs": _fs(node.file_system, time),
        "rlimit": {"time": time, "maxpid": node.pids_max, "curproc": node.pids},
    }
    runtime = {
        name: _fs(fs, time) for name, fs in (("imageFs", node.image_fs), ("containerFs", node.container_fs)) if fs
    }
    if runtime:
        out["runtime"] = runtime
    if node.swap is not None:
        out["swap"] = {"time": time, "swapAvailableBytes": node.swap[0], "swapUsageBytes": node.swap[1]}
    if node.kubelet is not None:
        own = {"cpu": _cpu(node.kubelet, time), "memory": _memory(node.kubelet, time)}
        out["systemContainers"].append({"name": "kubelet", "startTime": booted, **own})
    return out


def _node_network(node: NodeFigures, time: str) -> Json:
    rows = {
        name: {"name": name, "rxBytes": rx, "rxErrors": rx_errors, "txBytes": tx, "txErrors": tx_errors}
        for name, (rx, rx_errors, tx, tx_errors) in node.interfaces.items()
    }
    return {"time": time, **rows.get(node.default_interface, {}), "interfaces": list(rows.values())}


def _pod(pod: PodFigures, node: NodeFigures, time: str) -> Json:
    containers = [_container(pod, item, started, node, time) for item, started in pod.containers]
    out: Json = {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.started or time,
        "containers": containers,
    }
    whole = pod.sandbox.linux if pod.sandbox is not None and pod.sandbox.HasField("linux") else None
    for key in ("cpu", "memory"):
        if whole is not None and whole.HasField(key):
            out[key] = _cri_cpu(whole.cpu, 0, time) if key == "cpu" else _cri_memory(whole.memory, time)
        else:
            out[key] = _summed([container[key] for container in containers if key in container], time)
    if whole is not None and whole.HasField("network"):
        out["network"] = _pod_network(whole.network, time)
    if whole is not None and whole.process.HasField("process_count"):
        out["process_stats"] = {"process_count": whole.process.process_count.value}
    swaps = [container["swap"] for container in containers if "swap" in container]
    if swaps:
        out["swap"] = _summed(swaps, time)
    out["volume"] = [
        {
            **_fs(volume.usage, time),
            "name": volume.name,
            **({"pvcRef": {"name": volume.claim, "namespace": pod.namespace}} if volume.claim else {}),
        }
        for volume in pod.disk.volumes
    ]
    used, inodes = pod.disk.ephemeral
    layers = [item.writable_layer for item, _ in pod.containers]
    out["ephemeral-storage"] = _fs(
        FsUsage(
            used + sum(layer.used_bytes.value for layer in layers),
            inodes + sum(layer.inodes_used.value for layer in layers),
            *_room(node.file_system),
        ),
        time,
    )
    return out


def _room(fs: FsUsage) -> tuple[int, int, int, int]:
    return fs.capacity_bytes, fs.available_bytes, fs.inodes, fs.inodes_free


def _container(pod: PodFigures, item: cri.ContainerStats, started: str, node: NodeFigures, time: str) -> Json:
    name = item.attributes.labels.get(LABEL_CONTAINER, item.attributes.metadata.name)
    out: Json = {"name": name, "startTime": started or time}
    if item.HasField("cpu"):
        out["cpu"] = _cri_cpu(item.cpu, pod.rates.get(item.attributes.id, 0), time)
    if item.HasField("memory"):
        out["memory"] = _cri_memory(item.memory, time)
    image_fs = node.image_fs or node.file_system
    if item.HasField("writable_layer"):
        layer = item.writable_layer
        out["rootfs"] = _fs(FsUsage(layer.used_bytes.value, layer.inodes_used.value, *_room(image_fs)), time)
    used, inodes = dict(pod.disk.logs).get(name, (0, 0))
    out["logs"] = _fs(FsUsage(used, inodes, *_room(node.file_system)), time)
    if item.HasField("swap") and node.swap is not None:
        swap = item.swap
        out["swap"] = {
            "time": time,
            **_present(swap, swap_available_bytes="swapAvailableBytes", swap_usage_bytes="swapUsageBytes"),
        }
    return out


def _present(message: Any, **names: str) -> Json:
    """The fields of a CRI message that are set, by their names here."""
    return {name: getattr(message, field).value for field, name in names.items() if message.HasField(field)}


def _cri_cpu(cpu: cri.CpuUsage, rate: int, time: str) -> Json:
    out = {
        "time": time,
        **_present(cpu, usage_nano_cores="usageNanoCores", usage_core_nano_seconds="usageCoreNanoSeconds"),
    }
    out.setdefault("usageNanoCores", rate)
    return out


def _cri_memory(memory: cri.MemoryUsage, time: str) -> Json:
    return {
        "time": time,
        **_present(
            memory,
            available_bytes="availableBytes",
            usage_bytes="usageBytes",
            working_set_bytes="workingSetBytes",
            rss_bytes="rssBytes",
            page_faults="pageFaults",
            major_page_faults="majorPageFaults",
        ),
    }


def _summed(parts: Sequence[Json], time: str) -> Json:
    out: Json = {"time": time}
    for part in parts:
        for name, value in part.items():
            # What is available to one container says nothing about the pod.
            if name not in ("time", "availableBytes"):
                out[name] = out.get(name, 0) + value
    return out


def _pod_network(network: cri.NetworkUsage, time: str) -> Json:
    def row(interface: cri.NetworkInterfaceUsage) -> Json:
        figures = _present(
            interface, rx_bytes="rxBytes", rx_errors="rxErrors", tx_bytes="txBytes", tx_errors="txErrors"
        )
        return {"name": interface.name, **figures}

    first = row(network.default_interface)
    return {"time": time, **first, "interfaces": [first, *(row(other) for other in network.interfaces)]}


def _fs(fs: FsUsage, time: str) -> Json:
    return {
        "time": time,
        "availableBytes": fs.available_bytes,
        "capacityBytes": fs.capacity_bytes,
        "usedBytes": fs.used_bytes,
        "inodesFree": fs.inodes_free,
        "inodes": fs.inodes,
        "inodesUsed": fs.inodes_used,
    }


def _cpu(usage: kubelet_pb2.Usage, time: str) -> Json:
    return {
        "time": time,
        "usageNanoCores": usage.cpu_usage_nanocores,
        "usageCoreNanoSeconds": usage.cpu_usage_core_nanoseconds,
    }


def _memory(usage: kubelet_pb2.Usage, time: str) -> Json:
    return {
        "time": time,
        "usageBytes": usage.memory_usage_bytes,
        "workingSetBytes": usage.memory_working_set_bytes,
        "rssBytes": usage.memory_rss_bytes,
    }


_METRICS = (
    ("cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the {what} in core-seconds"),
    ("memory_working_set_bytes", "gauge", "Current working set of the {what} in bytes"),
)


def resource_metrics(stats: kubelet_pb2.StatsResponse) -> str:
    """The metrics that a metrics server scrapes, by upstream's names."""
    lines: list[str] = []
    nodes = [("", stats.usage)]
    pods = [(_labels(pod.namespace, pod.name), pod.usage) for pod in stats.pods]
    containers = [
        (_labels(pod.namespace, pod.name, container.name), container.usage)
        for pod in stats.pods
        for container in pod.containers
    ]
    for what, rows in (("node", nodes), ("pod", pods), ("container", containers)):
        for name, kind, text in _METRICS:
            full = f"{what}_{name}"
            lines += [f"# HELP {full} {text.format(what=what)}", f"# TYPE {full} {kind}"]
            for labels, usage in rows:
                value = (
                    usage.cpu_usage_core_nanoseconds / 1e9 if name.startswith("cpu") else usage.memory_working_set_bytes
                )
                lines.append(f"{full}{labels} {value}")
    lines += ["# HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise"]
    lines += ["# TYPE resource_scrape_error gauge", "resource_scrape_error 0", ""]
    return "\n".join(lines)


def _labels(namespace: str, pod: str, container: str = "") -> str:
    head = f'container="{container}",' if container else ""
    return f'{{{head}namespace="{namespace}",pod="{pod}"}}'
