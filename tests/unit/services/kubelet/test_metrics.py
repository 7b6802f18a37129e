"""What Prometheus reads of a kubelet."""

from __future__ import annotations

from cri_api.v1 import api_pb2 as cri

from protos.cutaway.v1 import kubelet_pb2
from services.kubelet import cadvisor, runtime_metrics


def test_operations_have_upstreams_names() -> None:
    assert [runtime_metrics.operation(m) for m in ("RunPodSandbox", "ListPodSandbox", "CreateContainer")] == [
        "run_podsandbox",
        "list_podsandbox",
        "create_container",
    ]


def test_the_runtimes_metrics_are_shown_with_their_labels_and_the_machine_as_the_root() -> None:
    name = "container_memory_usage_bytes"
    descriptor = cri.MetricDescriptor(name=name, help="Memory", label_keys=["container", "id", "pod"])
    metric = cri.Metric(
        name=name, timestamp=5_000_000_000, metric_type=cri.GAUGE, label_values=["c", "/x", 'p"q'],
        value=cri.UInt64Value(value=7),
    )  # fmt: skip
    pod = cri.PodSandboxMetrics(container_metrics=[cri.ContainerMetrics(metrics=[metric])])
    usage = kubelet_pb2.Usage(memory_usage_bytes=99)
    lines = cadvisor.exposition([descriptor], [pod], usage).splitlines()
    assert f"# TYPE {name} gauge" in lines
    assert f'{name}{{container="",id="/",pod=""}} 99' in lines
    assert f'{name}{{container="c",id="/x",pod="p\\"q"}} 7 5000' in lines
    assert any(line.startswith("machine_memory_bytes ") for line in lines)


def test_a_runtime_without_metrics_is_told_of_by_its_statistics() -> None:
    stats = kubelet_pb2.StatsResponse(node="n")
    pod = stats.pods.add(namespace="ns", name="p", uid="u")
    pod.containers.add(name="c", usage=kubelet_pb2.Usage(cpu_usage_core_nanoseconds=1_500_000_000))
    line = 'container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 1.5'
    assert line in cadvisor.plain(stats).splitlines()
