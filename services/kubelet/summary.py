"""Usage in the forms that Kubernetes' tools read.

`/stats/summary` (JSON), `/metrics/resource` (Prometheus text). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from protos.cutaway.v1 import kubelet_pb2

Json = dict[str, Any]


def summary(stats: kubelet_pb2.StatsResponse, now: datetime, started: Mapping[str, str], disk: Json) -> Json:
    """The Summary of k8s.io/kubelet/pkg/apis/stats/v1alpha1. `started` has pods' start times by uid."""
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    node = {
        "nodeName": stats.node,
        "startTime": time,
        "cpu": _cpu(stats.usage, time),
        "memory": _memory(stats.usage, time),
        "network": {
            "time": time,
            "name": "all",
            "rxBytes": stats.usage.network_received_bytes,
            "txBytes": stats.usage.network_sent_bytes,
        },
        "fs": {"time": time, **disk},
    }
    pods = []
    for pod in stats.pods:
        containers = [
            {
                "name": c.name,
                "startTime": started.get(pod.uid, time),
                "cpu": _cpu(c.usage, time),
                "memory": _memory(c.usage, time),
                "rootfs": {"time": time, "usedBytes": c.usage.file_system_used_bytes},
            }
            for c in pod.containers
        ]
        pods.append(
            {
                "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                "startTime": started.get(pod.uid, time),
                "containers": containers,
                "cpu": _cpu(pod.usage, time),
                "memory": _memory(pod.usage, time),
            }
        )
    return {"node": node, "pods": pods}


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
