"""cAdvisor's figures: what the kernel's files mean, on both cgroup versions."""

from cri_api.v1 import api_pb2 as cri

from cri import cgroups, metrics, oci_parts
from cri.config import Config
from cri.metric_readings import Readings, block_io_v1, block_io_v2

_NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    2000      20    1    2    0     0          0         0     3000      30    3    4    0     0       0          0
"""  # fmt: skip # noqa: E501


def test_the_network_is_counted_by_interface_without_the_loopback() -> None:
    samples = {
        name.removeprefix("container_network_"): (labels, v) for name, labels, v in metrics.network_samples(_NET)
    }
    assert samples == {
        "receive_bytes_total": (("eth0",), 2000),
        "receive_packets_total": (("eth0",), 20),
        "receive_errors_total": (("eth0",), 1),
        "receive_packets_dropped_total": (("eth0",), 2),
        "transmit_bytes_total": (("eth0",), 3000),
        "transmit_packets_total": (("eth0",), 30),
        "transmit_errors_total": (("eth0",), 3),
        "transmit_packets_dropped_total": (("eth0",), 4),
    }


def test_block_devices_on_both_versions() -> None:
    (old,) = block_io_v1("250:9999 Read 4096\n250:9999 Write 1\nTotal 4097\n", "250:9999 Read 2\n250:9999 Write 3\n")
    (new,) = block_io_v2("250:9999 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0\n")
    assert old == new
    assert (new.read_bytes, new.written_bytes, new.reads, new.writes) == (4096, 1, 2, 3)


def test_what_was_not_read_is_left_out_and_never_zero() -> None:
    readings = Readings(usage=cgroups.Usage(cpu_nanoseconds=2_500_000_000), processes=3)
    readings.pressure_us = {("cpu", "some"): 7_000_000, ("cpu", "full"): 1_000_000}
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=64)
    found = {name: value for name, _, value in metrics.container_samples(readings, limits, 5_000_000_000)}
    assert found["container_cpu_usage_seconds_total"] == 2
    assert found["container_processes"] == 3
    assert found["container_spec_memory_limit_bytes"] == 64
    assert found["container_start_time_seconds"] == 5
    assert found["container_pressure_cpu_waiting_seconds_total"] == 7
    assert found["container_pressure_cpu_stalled_seconds_total"] == 1
    assert "container_memory_rss" not in found
    assert "container_spec_cpu_quota" not in found


def test_where_a_containers_cgroup_is_below_the_file_system() -> None:
    plain, systemd = Config(), Config(systemd_cgroup=True)
    assert oci_parts.cgroup_directory("/kubepods/podx", "c1", plain) == "/kubepods/podx/c1"
    assert oci_parts.cgroup_directory("/kubepods.slice/kubepods-podx.slice", "c1", systemd) == (
        "/kubepods.slice/kubepods-podx.slice/cri-cutaway-c1.scope"
    )
