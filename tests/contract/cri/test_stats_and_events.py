"""Statistics, metrics and the event stream."""

import queue
import threading
import time

import grpc
from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, code_of


def test_container_stats_show_cpu_memory_and_layer(client: CriClient) -> None:
    pod = client.run_pod()
    config = pod.container_config("sh", "-c", "head -c 3000000 /dev/zero > /file; echo written; while true; do :; done")
    container = pod.run(config=config)
    container.wait_output("written")
    first = _stats(client, container.id)
    time.sleep(0.3)
    second = _stats(client, container.id)
    assert second.attributes.id == container.id
    assert second.attributes.metadata == container.config.metadata
    assert second.cpu.usage_core_nano_seconds.value > first.cpu.usage_core_nano_seconds.value
    assert second.memory.working_set_bytes.value > 0
    assert second.memory.timestamp > first.memory.timestamp
    listed = client.runtime.ListContainerStats(cri.ListContainerStatsRequest()).stats
    assert [item.attributes.id for item in listed] == [container.id]
    wanted = cri.ContainerStatsFilter(pod_sandbox_id="f" * 64)
    assert not client.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=wanted)).stats


def _stats(client: CriClient, container_id: str) -> cri.ContainerStats:
    return client.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=container_id)).stats


def test_sandbox_stats_show_the_network(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.run("sleep", "1000")
    stats = client.runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id=pod.id)).stats
    assert stats.attributes.id == pod.id
    assert stats.linux.network.default_interface.name == "eth0"
    assert [item.attributes.id for item in stats.linux.containers] == [container.id]
    listed = client.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest()).stats
    assert [item.attributes.id for item in listed] == [pod.id]


def test_events_tell_the_life_of_a_pod_as_it_happens(ours: CriClient) -> None:
    received: queue.Queue[cri.ContainerEventResponse] = queue.Queue()
    call = ours.runtime.GetContainerEvents(cri.GetEventsRequest())

    def read() -> None:
        try:
            for event in call:
                received.put(event)
        except grpc.RpcError:
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    # The subscription is seen to be there by its first event.
    first = ours.run_pod()
    seen: list[cri.ContainerEventResponse] = []
    while not seen:
        first.remove()
        first = ours.run_pod()
        try:
            seen.append(received.get(timeout=0.5))
        except queue.Empty:
            continue
    pod = ours.run_pod()
    container = pod.run("sh", "-c", "exit 3")
    container.wait_exited()
    pod.stop()
    pod.remove()
    kinds = cri.ContainerEventType
    expected = [
        (pod.id, kinds.CONTAINER_CREATED_EVENT),
        (pod.id, kinds.CONTAINER_STARTED_EVENT),
        (container.id, kinds.CONTAINER_CREATED_EVENT),
        (container.id, kinds.CONTAINER_STARTED_EVENT),
        (container.id, kinds.CONTAINER_STOPPED_EVENT),
        (pod.id, kinds.CONTAINER_STOPPED_EVENT),
        (container.id, kinds.CONTAINER_DELETED_EVENT),
        (pod.id, kinds.CONTAINER_DELETED_EVENT),
    ]
    got: list[cri.ContainerEventResponse] = []
    while len(got) < len(expected):
        event = received.get(timeout=10)
        if event.container_id in (pod.id, container.id):
            got.append(event)
    assert [(event.container_id, event.container_event_type) for event in got] == expected
    stopped = got[4]
    assert stopped.pod_sandbox_status.id == pod.id
    assert [(s.id, s.state, s.exit_code) for s in stopped.containers_statuses] == [
        (container.id, cri.CONTAINER_EXITED, 3)
    ]
    call.cancel()
    reader.join(5)


# What a kernel may not count: pressure, huge pages, block devices, a quota or reservation that was not asked for.
_DEPENDS = (
    "container_pressure_",
    "container_hugetlb_",
    "container_blkio_",
    "container_fs_reads",
    "container_fs_writes",
)


def test_every_metric_has_a_descriptor_and_as_many_labels_as_it_says(ours: CriClient) -> None:
    pod = ours.run_pod()
    config = pod.container_config("sleep", "1000")
    config.linux.resources.cpu_period, config.linux.resources.cpu_quota = 100_000, 20_000
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    container = pod.run(config=config)
    descriptors = ours.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest()).descriptors
    keys = {d.name: list(d.label_keys) for d in descriptors}
    metrics = ours.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics
    assert [item.pod_sandbox_id for item in metrics] == [pod.id]
    found = [*metrics[0].metrics, *metrics[0].container_metrics[0].metrics]
    assert {name for name in keys if not name.startswith(_DEPENDS)} - {m.name for m in found} == set()
    for metric in found:
        assert len(metric.label_values) == len(keys[metric.name]), metric.name
    values = {m.name: m for m in metrics[0].container_metrics[0].metrics}
    labels = dict(zip(keys["container_processes"], values["container_processes"].label_values, strict=True))
    assert (labels["container"], labels["name"]) == (container.config.metadata.name, container.id)
    assert values["container_processes"].value.value == 1
    assert values["container_spec_cpu_quota"].value.value == 20_000
    assert values["container_memory_usage_bytes"].value.value > 0
    received = next(m for m in metrics[0].metrics if m.name == "container_network_receive_bytes_total")
    assert received.label_values[-1] == "eth0"


def test_a_checkpoint_is_refused_plainly(ours: CriClient) -> None:
    request = cri.CheckpointContainerRequest(container_id="x", location="/tmp/x")
    assert code_of(lambda: ours.runtime.CheckpointContainer(request)) == "UNIMPLEMENTED"


def test_the_cgroup_driver_is_told(ours: CriClient) -> None:
    answer = ours.runtime.RuntimeConfig(cri.RuntimeConfigRequest())
    assert answer.linux.cgroup_driver == cri.CGROUPFS
