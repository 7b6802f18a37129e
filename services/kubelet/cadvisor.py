"""`/metrics/cadvisor`: the runtime's metrics of containers and pods by cAdvisor's names, and the machine's.

The first is asked of the runtime (CRI's ListMetricDescriptors and ListPodSandboxMetrics, KEP-2371); a runtime that has
none of it is told of by what its plain statistics say. Formatting is pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from cri_api.v1 import api_pb2 as cri

from protos.cutaway.v1 import kubelet_pb2
from services.kubelet import node_info

_KINDS = {cri.COUNTER: "counter", cri.GAUGE: "gauge"}


def exposition(
    descriptors: Iterable[cri.MetricDescriptor], pods: Iterable[cri.PodSandboxMetrics], usage: kubelet_pb2.Usage
) -> str:
    """Prometheus text: each metric once, its samples below it. A sample without a descriptor is left out."""
    described = {d.name: d for d in descriptors}
    samples: dict[str, list[cri.Metric]] = {}
    for pod in pods:
        for metric in [*pod.metrics, *(m for c in pod.container_metrics for m in c.metrics)]:
            samples.setdefault(metric.name, []).append(metric)
    lines = _machine()
    root = _root(usage)
    for name, descriptor in described.items():
        found = samples.get(name, [])
        if not found and name not in root:
            continue
        kind = _KINDS.get(found[0].metric_type, "untyped") if found else "gauge"
        lines += [f"# HELP {name} {descriptor.help}", f"# TYPE {name} {kind}"]
        if name in root:
            keys = [(key, "/" if key == "id" else "total" if key == "cpu" else "") for key in descriptor.label_keys]
            lines.append(_line(name, keys, root[name], at_ms=0))
        for metric in found:
            pairs = list(zip(descriptor.label_keys, metric.label_values, strict=False))
            lines.append(_line(name, pairs, metric.value.value, metric.timestamp // 1_000_000))
    return "\n".join([*lines, ""])


def plain(stats: kubelet_pb2.StatsResponse) -> str:
    """The same of what every runtime tells: cpu and memory of containers."""
    lines = _machine()
    rows = (
        ("container_cpu_usage_seconds_total", "counter", lambda u: u.cpu_usage_core_nanoseconds / 1e9),
        ("container_memory_usage_bytes", "gauge", lambda u: u.memory_usage_bytes),
        ("container_memory_working_set_bytes", "gauge", lambda u: u.memory_working_set_bytes),
        ("container_memory_rss", "gauge", lambda u: u.memory_rss_bytes),
        ("container_fs_usage_bytes", "gauge", lambda u: u.file_system_used_bytes),
    )
    for name, kind, value in rows:
        lines += [f"# HELP {name} As the container runtime tells", f"# TYPE {name} {kind}"]
        lines.append(_line(name, [("id", "/")], value(stats.usage)))
        for pod in stats.pods:
            for container in pod.containers:
                pairs = [("container", container.name), ("namespace", pod.namespace), ("pod", pod.name)]
                lines.append(_line(name, pairs, value(container.usage)))
    return "\n".join([*lines, ""])


def _root(usage: kubelet_pb2.Usage) -> dict[str, float]:
    """The machine as a whole, which cAdvisor calls the container `/`."""
    return {
        "container_cpu_usage_seconds_total": usage.cpu_usage_core_nanoseconds / 1e9,
        "container_memory_usage_bytes": usage.memory_usage_bytes,
        "container_memory_working_set_bytes": usage.memory_working_set_bytes,
        "container_memory_rss": usage.memory_rss_bytes,
    }


def _machine() -> list[str]:
    found = (
        ("machine_cpu_cores", "Number of logical CPU cores", node_info.cpus()),
        ("machine_memory_bytes", "Amount of memory installed on the machine", node_info.memory_bytes()),
    )
    lines = []
    for name, text, value in found:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
    return lines


def _line(name: str, pairs: Iterable[tuple[str, str]], value: float, at_ms: int = 0) -> str:
    labels = ",".join(f'{key}="{_escaped(text)}"' for key, text in pairs)
    stamp = f" {at_ms}" if at_ms else ""
    return f"{name}{{{labels}}} {value}{stamp}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
