"""The OCI spec that a CRI request becomes."""

from typing import Any

import pytest
from cri_api.v1 import api_pb2 as cri

from cri import oci_mounts, oci_parts, oci_resources
from cri.config import Config
from cri.errors import InvalidArgument
from cri.oci_spec import Device, NodeFacts, SpecInput, User, container_spec, process_args

NODE = NodeFacts(
    capabilities=frozenset({"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"}),
    cgroup_v2=True,
    swap_accounting=True,
    apparmor=False,
    apparmor_default="",
    architecture="amd64",
    hostname="node",
    oom_score_adj_min=0,
)


def spec_input(config: cri.ContainerConfig, **fields: Any) -> SpecInput:
    values: dict[str, Any] = {
        "container_id": "cid",
        "sandbox_id": "sid",
        "config": config,
        "sandbox": cri.PodSandboxConfig(
            hostname="pod", linux=cri.LinuxPodSandboxConfig(cgroup_parent="/kubepods/pod1")
        ),
        "image_config": {"Entrypoint": ["/entry"], "Cmd": ["arg"], "Env": ["A=image", "PATH=/p"], "WorkingDir": "/w"},
        "user": User(1000, 100, (100, 5)),
        "mount_sources": [mount.host_path for mount in config.mounts],
        "devices": [],
        "namespaces": {"mount": "", "pid": "", "network": "/ns/net"},
        "hostname_file": "/s/hostname",
        "resolv_conf": "/s/resolv.conf",
        "shm": "/s/shm",
        "node": NODE,
        "settings": Config(),
        **fields,
    }
    return SpecInput(**values)


def test_a_plain_container() -> None:
    spec = container_spec(spec_input(cri.ContainerConfig(envs=[cri.KeyValue(key="A", value="pod")])))
    process = spec["process"]
    assert process["args"] == ["/entry", "arg"]
    assert process["cwd"] == "/w"
    assert process["env"] == ["PATH=/p", "HOSTNAME=pod", "A=pod"]
    assert process["user"] == {"uid": 1000, "gid": 100, "additionalGids": [100, 5]}
    assert process["capabilities"]["inheritable"] == [] if "inheritable" in process["capabilities"] else True
    assert spec["linux"]["cgroupsPath"] == "/kubepods/pod1/cid"
    assert spec["linux"]["namespaces"] == [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/ns/net"}]
    assert spec["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert spec["annotations"][oci_parts.GROUP_ANNOTATION] == "sid"
    assert "seccomp" not in spec["linux"]


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["/entry", "arg"]),
        ([], ["x"], ["/entry", "x"]),
        (["c"], [], ["c"]),
        (["c"], ["x"], ["c", "x"]),
    ],
)
def test_command_and_args_follow_the_table(command: list[str], args: list[str], expected: list[str]) -> None:
    image = {"Entrypoint": ["/entry"], "Cmd": ["arg"]}
    assert process_args(cri.ContainerConfig(command=command, args=args), image) == expected


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no command"):
        process_args(cri.ContainerConfig(), {})


def test_a_privileged_container_sees_and_may_all() -> None:
    config = cri.ContainerConfig()
    context = config.linux.security_context
    context.privileged = True
    context.masked_paths.append("/proc/kcore")
    spec = container_spec(spec_input(config))
    assert "maskedPaths" not in spec["linux"]
    assert set(spec["process"]["capabilities"]["effective"]) == NODE.capabilities
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in next(mount for mount in spec["mounts"] if mount["destination"] == "/sys")["options"]


def test_the_oom_score_is_brought_to_what_is_allowed() -> None:
    config = cri.ContainerConfig()
    config.linux.resources.oom_score_adj = -998
    assert container_spec(spec_input(config))["process"]["oomScoreAdj"] == 0
    config.linux.resources.oom_score_adj = 900
    assert container_spec(spec_input(config))["process"]["oomScoreAdj"] == 900


def test_devices_are_allowed_one_by_one() -> None:
    device = Device(path="/dev/x", kind="c", major=1, minor=2, mode=0o660, uid=0, gid=5, access="r")
    linux = container_spec(spec_input(cri.ContainerConfig(), devices=[device]))["linux"]
    assert linux["resources"]["devices"][1] == {"allow": True, "type": "c", "major": 1, "minor": 2, "access": "r"}
    assert linux["devices"][0]["path"] == "/dev/x"


def test_requested_mounts_replace_ours_and_parents_come_first() -> None:
    mounts = [
        cri.Mount(container_path="/a/b/c", host_path="/3"),
        cri.Mount(container_path="/a", host_path="/1"),
        cri.Mount(container_path="/etc/resolv.conf/", host_path="/mine", readonly=True),
        cri.Mount(container_path="/a/b", host_path="/2", propagation=cri.PROPAGATION_BIDIRECTIONAL),
    ]
    spec = container_spec(spec_input(cri.ContainerConfig(mounts=mounts)))
    by_path = [mount["destination"] for mount in spec["mounts"]]
    assert by_path.index("/a") < by_path.index("/a/b") < by_path.index("/a/b/c")
    assert [mount["source"] for mount in spec["mounts"] if "resolv.conf" in mount["destination"]] == ["/mine"]
    assert spec["linux"]["rootfsPropagation"] == "rshared"


@pytest.mark.parametrize(
    "mount",
    [
        cri.Mount(container_path="relative", host_path="/x"),
        cri.Mount(container_path="/x", host_path="/x", recursive_read_only=True),
        cri.Mount(
            container_path="/x",
            host_path="/x",
            readonly=True,
            recursive_read_only=True,
            propagation=cri.PROPAGATION_HOST_TO_CONTAINER,
        ),
    ],
)
def test_a_mount_that_contradicts_itself_is_refused(mount: cri.Mount) -> None:
    with pytest.raises(InvalidArgument):
        oci_mounts.from_request(mount, "/x")


def test_resources_are_bounded_and_empty_ones_left_out() -> None:
    wanted = cri.LinuxContainerResources(cpu_shares=1, memory_limit_in_bytes=100, unified={"memory.high": "50"})
    assert oci_resources.linux_resources(wanted, swap_accounting=True) == {
        "cpu": {"shares": 2},
        "memory": {"limit": 100, "swap": 100},
        "unified": {"memory.high": "50"},
    }
    assert oci_resources.linux_resources(cri.LinuxContainerResources(), swap_accounting=True) == {}


def test_an_update_changes_what_it_names() -> None:
    old = cri.LinuxContainerResources(cpu_shares=512, memory_limit_in_bytes=100)
    new = cri.LinuxContainerResources(memory_limit_in_bytes=200)
    merged = oci_resources.merged(old, new)
    assert (merged.cpu_shares, merged.memory_limit_in_bytes) == (512, 200)
    assert old.memory_limit_in_bytes == 100


def test_cgroup_paths_follow_the_driver() -> None:
    assert oci_parts.cgroups_path("", "x", Config()) == "/k8s.io/x"
    slices = Config(systemd_cgroup=True)
    path = "/kubepods.slice/kubepods-pod1.slice"
    assert oci_parts.cgroups_path(path, "x", slices) == "kubepods-pod1.slice:cri-cutaway:x"
