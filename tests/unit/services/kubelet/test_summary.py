"""What `/stats/summary` says, field by field, of given figures; and who outgrew a limit of ephemeral storage."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cri_api.v1 import api_pb2 as cri
from lightkube.models import core_v1

from protos.cutaway.v1 import kubelet_pb2
from services.kubelet import disk_usage
from services.kubelet.disk_usage import FsUsage, PodDiskUsage, VolumeUsage
from services.kubelet.summary import NodeFigures, PodFigures, summary
from services.kubelet.volumes.context import VolumePath

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NODE = NodeFigures(
    name="n1",
    booted_at=NOW.timestamp() - 60,
    usage=kubelet_pb2.Usage(memory_working_set_bytes=300, cpu_usage_nanocores=7),
    memory_total_bytes=1000,
    file_system=FsUsage(10, 2, 100, 90, 20, 18),
    image_fs=FsUsage(5, 1, 200, 195, 40, 39),
    container_fs=FsUsage(6, 1, 200, 194, 40, 39),
    pids_max=4096,
    pids=77,
    swap=(400, 50),
    interfaces={"eth0": (1, 2, 3, 4), "eth1": (5, 6, 7, 8)},
    default_interface="eth0",
)


def container(name: str, **memory: int) -> cri.ContainerStats:
    item = cri.ContainerStats()
    item.attributes.id = f"id-{name}"
    item.attributes.labels["io.kubernetes.container.name"] = name
    item.cpu.usage_core_nano_seconds.value = 500
    for field, value in memory.items():
        getattr(item.memory, field).value = value
    item.writable_layer.used_bytes.value, item.writable_layer.inodes_used.value = 30, 3
    item.swap.swap_usage_bytes.value = 9
    return item


def pod(sandbox: cri.PodSandboxStats | None = None) -> PodFigures:
    disk = PodDiskUsage(
        (
            VolumeUsage("scratch", FsUsage(40, 4, 100, 90, 20, 18), ephemeral=True),
            VolumeUsage("data", FsUsage(50, 5, 500, 450, 50, 45), claim="mine"),
        ),
        {"a": (2, 1)},
    )
    items = [(container("a", working_set_bytes=11, available_bytes=1), "2026-01-02T03:00:00Z"), (container("b"), "")]
    return PodFigures("ns", "p", "u", "2026-01-02T03:00:00Z", items, {"id-a": 42}, sandbox, disk)


def test_the_node() -> None:
    node = summary(NODE, [], NOW)["node"]
    assert node["startTime"] == "2026-01-02T03:03:05Z"
    assert node["memory"]["availableBytes"] == 700
    assert node["network"]["name"] == "eth0"
    assert (node["network"]["txErrors"], [i["name"] for i in node["network"]["interfaces"]]) == (4, ["eth0", "eth1"])
    assert node["runtime"]["imageFs"]["usedBytes"] == 5
    assert node["runtime"]["containerFs"]["capacityBytes"] == 200
    assert node["rlimit"] == {"time": "2026-01-02T03:04:05Z", "maxpid": 4096, "curproc": 77}
    assert node["swap"]["swapUsageBytes"] == 50
    assert node["fs"]["inodesUsed"] == 2


def test_a_pod_without_figures_of_its_own_is_the_sum_of_its_containers() -> None:
    found = summary(NODE, [pod()], NOW)["pods"][0]
    assert found["cpu"] == {"time": "2026-01-02T03:04:05Z", "usageNanoCores": 42, "usageCoreNanoSeconds": 1000}
    assert found["memory"] == {"time": "2026-01-02T03:04:05Z", "workingSetBytes": 11}
    assert "network" not in found
    first, second = found["containers"]
    assert (first["logs"]["usedBytes"], first["rootfs"]["usedBytes"], first["rootfs"]["capacityBytes"]) == (2, 30, 200)
    assert second["startTime"] == "2026-01-02T03:04:05Z"
    assert found["swap"]["swapUsageBytes"] == 18
    assert found["volume"][1]["pvcRef"] == {"name": "mine", "namespace": "ns"}
    storage = found["ephemeral-storage"]
    assert (storage["usedBytes"], storage["inodesUsed"], storage["capacityBytes"]) == (40 + 2 + 60, 4 + 1 + 6, 100)


def test_a_pods_own_figures_and_its_network() -> None:
    sandbox = cri.PodSandboxStats()
    sandbox.linux.cpu.usage_nano_cores.value = 99
    sandbox.linux.process.process_count.value = 6
    sandbox.linux.network.default_interface.name = "eth0"
    sandbox.linux.network.default_interface.rx_bytes.value = 123
    found = summary(NODE, [pod(sandbox)], NOW)["pods"][0]
    assert found["cpu"]["usageNanoCores"] == 99
    assert found["process_stats"] == {"process_count": 6}
    assert (found["network"]["name"], found["network"]["rxBytes"]) == ("eth0", 123)
    assert found["network"]["interfaces"] == [{"name": "eth0", "rxBytes": 123}]


def test_only_cpu_and_memory() -> None:
    found = summary(NODE, [pod()], NOW, only_cpu_and_memory=True)
    assert set(found["node"]) == {"nodeName", "startTime", "cpu", "memory", "systemContainers"}
    assert set(found["pods"][0]) == {"podRef", "startTime", "cpu", "memory", "containers"}
    assert set(found["pods"][0]["containers"][0]) == {"name", "startTime", "cpu", "memory"}


def limited(limit: str, volumes: list[dict[str, object]] | None = None) -> core_v1.Pod:
    container = {"name": "c", "resources": {"limits": {"ephemeral-storage": limit}}}
    value = {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [container], "volumes": volumes or []}}
    return msgspec.convert(value, core_v1.Pod)


def test_volumes_and_logs_are_measured_and_what_is_in_memory_is_not_ephemeral(tmp_path: Path) -> None:
    for name in ("disk", "memory", "logs/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(b"x" * 100_000)
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    paths = {name: VolumePath(str(tmp_path / name)) for name in ("disk", "memory")}
    usage = disk_usage.measure(limited("1Gi", volumes), paths, tmp_path / "logs")
    assert {v.name: v.ephemeral for v in usage.volumes} == {"disk": True, "memory": False}
    assert usage.ephemeral == (2 * usage.logs["c"][0], 2)
    assert usage.logs["c"][0] >= 100_000


def test_a_pod_over_its_limit_of_ephemeral_storage_is_told_so() -> None:
    usage = PodDiskUsage((), {"c": (600, 1)})
    assert disk_usage.over_limit(limited("1Ki"), usage, {"c": 400}) == ""
    text = disk_usage.over_limit(limited("1Ki"), usage, {"c": 425})
    assert text == "Pod ephemeral local storage usage exceeds the total limit of containers 1Ki. "
    two = limited("1Ki")
    second = msgspec.structs.replace(two.spec.containers[0], name="d")
    two.spec.containers.append(second)
    assert disk_usage.over_limit(two, PodDiskUsage((), {"c": (600, 1)}), {"c": 425}) == (
        'Container c exceeded its local ephemeral storage limit "1Ki". '
    )
