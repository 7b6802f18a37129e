"""Pods with users of their own (KEP-127): ids of the node that are not the pod's, in processes, files and volumes."""

import os
import subprocess
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, Pod, TestContainer, code_of

FIRST, LENGTH = 131072, 65536


def said(container: TestContainer, *command: str) -> str:
    answer = container.exec(*command)
    return (answer.stdout + answer.stderr).decode()


def mapping(host_id: int = FIRST, container_id: int = 0, length: int = LENGTH) -> cri.IDMapping:
    return cri.IDMapping(host_id=host_id, container_id=container_id, length=length)


def config_with(client: CriClient, *mappings: cri.IDMapping, **fields: object) -> cri.PodSandboxConfig:
    config = client.pod_config()
    options = config.linux.security_context.namespace_options
    options.userns_options.CopyFrom(cri.UserNamespace(mode=cri.POD, uids=mappings, gids=mappings))
    for name, value in fields.items():
        setattr(options, name, value)
    return config


@pytest.fixture
def pod(ours: CriClient) -> Pod:
    features = {h.name: h.features for h in ours.runtime.Status(cri.StatusRequest()).runtime_handlers}
    if not features[""].user_namespaces:
        pytest.skip("this kernel has no user namespaces for us, or no mounts with mapped ids")
    return ours.run_pod(config_with(ours, mapping()))


def test_root_of_the_pod_is_nobody_on_the_node(pod: Pod) -> None:
    container = pod.run("sleep", "1000")
    assert said(container, "cat", "/proc/self/uid_map").split() == ["0", str(FIRST), str(LENGTH)]
    assert said(container, "cat", "/proc/self/gid_map").split() == ["0", str(FIRST), str(LENGTH)]
    assert said(container, "id", "-u") == "0\n"
    owners = {
        Path(f"/proc/{name}").stat().st_uid
        for name in os.listdir("/proc")
        if name.isdigit() and _command(name) == b"sleep\x001000\x00"
    }
    assert owners == {FIRST}


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_files_of_the_image_belong_to_the_pods_own_root_and_can_be_changed(pod: Pod) -> None:
    script = "stat -c %u:%g /bin/busybox /etc /; echo new > /etc/made && chown 7:8 /etc/made && stat -c %u:%g /etc/made"
    assert pod.shell(script).split() == ["0:0", "0:0", "0:0", "7:8"]


def test_a_volume_shows_its_owners_as_ids_of_the_pod_and_keeps_them_on_disk(pod: Pod, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o700)
    (volume / "given").write_text("given")
    os.chown(volume / "given", 1234, 1234)
    mount = cri.Mount(
        container_path="/data", host_path=str(volume), uidMappings=[mapping()], gidMappings=[mapping()]
    )  # fmt: skip
    script = "stat -c %u /data /data/given; echo x > /data/made; chown 55 /data/made"
    assert pod.shell(script, mounts=[mount]).split() == ["0", "1234"]
    assert (volume / "made").stat().st_uid == 55
    assert (volume / "given").stat().st_uid == 1234


def test_a_volume_without_a_map_shows_owners_as_nobody(pod: Pod, tmp_path: Path) -> None:
    mount = cri.Mount(container_path="/data", host_path=str(tmp_path))
    assert pod.shell("stat -c %u /data; touch /data/x 2>&1", mounts=[mount]).splitlines()[0] == "65534"


def test_its_network_and_system_files_are_its_own(pod: Pod) -> None:
    config = pod.container_config("sleep", "1000")
    config.linux.security_context.capabilities.add_capabilities.append("NET_ADMIN")
    container = pod.run(config=config)
    assert said(container, "ip", "link", "set", "lo", "mtu", "1400") == ""
    assert said(container, "cat", "/proc/sys/kernel/hostname").strip() == pod.config.hostname
    assert said(container, "sh", "-c", "echo x > /dev/shm/x && cat /dev/shm/x") == "x\n"


def test_sysctls_of_network_and_ipc_are_set(ours: CriClient, pod: Pod) -> None:
    config = config_with(ours, mapping(FIRST + LENGTH))
    config.linux.sysctls["net.ipv4.ip_unprivileged_port_start"] = "80"
    config.linux.sysctls["kernel.shm_rmid_forced"] = "1"
    other = ours.run_pod(config)
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced"
    assert other.shell(script).split() == ["80", "1"]


def test_a_shared_pid_namespace_too(ours: CriClient, pod: Pod) -> None:
    other = ours.run_pod(config_with(ours, mapping(FIRST + LENGTH), pid=cri.POD))
    other.run("sleep", "4321")
    assert "4321" in said(other.run("sleep", "100"), "ps")


def test_nothing_stays_mounted(ours: CriClient, pod: Pod, tmp_path: Path) -> None:
    mount = cri.Mount(
        container_path="/data", host_path=str(tmp_path), uidMappings=[mapping()], gidMappings=[mapping()]
    )  # fmt: skip
    pod.run("sleep", "1000", mounts=[mount])
    assert [line for line in Path("/proc/self/mounts").read_text().splitlines() if "-userns/" in line] == []


@pytest.mark.parametrize(
    ("mappings", "word"),
    [
        ((), "exactly one"),
        ((mapping(), mapping(FIRST + LENGTH)), "exactly one"),
        ((mapping(container_id=1),), "not 0"),
        ((mapping(length=0),), "range"),
    ],
)
def test_maps_that_can_not_be_are_refused(
    ours: CriClient, pod: Pod, mappings: tuple[cri.IDMapping, ...], word: str
) -> None:
    assert code_of(lambda: ours.run_pod(config_with(ours, *mappings))) == "INVALID_ARGUMENT", word


def test_modes_that_make_no_sense_are_refused(ours: CriClient, pod: Pod) -> None:
    for mode in (cri.CONTAINER, cri.TARGET):
        config = config_with(ours, mapping())
        config.linux.security_context.namespace_options.userns_options.mode = mode
        assert code_of(lambda config=config: ours.run_pod(config)) == "INVALID_ARGUMENT"
    config = config_with(ours, mapping(), network=cri.NODE)
    assert code_of(lambda: ours.run_pod(config)) == "INVALID_ARGUMENT"


def test_a_container_has_the_users_of_its_pod(pod: Pod) -> None:
    config = pod.container_config("true")
    config.linux.security_context.namespace_options.userns_options.uids[0].host_id += LENGTH
    config.linux.security_context.namespace_options.userns_options.gids[0].host_id += LENGTH
    assert code_of(lambda: pod.create(config=config)) == "INVALID_ARGUMENT"


def test_a_read_only_volume_keeps_what_its_file_system_forbids(pod: Pod, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec", "tmpfs", str(tmp_path)], check=True)
    try:
        mount = cri.Mount(
            container_path="/data", host_path=str(tmp_path), readonly=True, uidMappings=[mapping()],
            gidMappings=[mapping()],
        )  # fmt: skip
        options = pod.shell("grep ' /data ' /proc/mounts", mounts=[mount]).split()[3].split(",")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
