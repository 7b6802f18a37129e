"""What a container may do and see: users, capabilities, file systems, devices, seccomp, resources."""

import os
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, Pod, code_of

CAP_EFFECTIVE = "grep CapEff /proc/self/status | awk '{print $2}'"


@pytest.fixture
def pod(client: CriClient) -> Pod:
    return client.run_pod()


def test_user_and_groups_by_number(pod: Pod) -> None:
    config = pod.container_config()
    context = config.linux.security_context
    context.run_as_user.value = 2000
    context.run_as_group.value = 3000
    context.supplemental_groups.extend([4000, 5000])
    out = pod.shell("id -u; id -g; id -G", config)
    uid, gid, groups = out.splitlines()
    assert (uid, gid) == ("2000", "3000")
    assert set(groups.split()) == {"3000", "4000", "5000"}


def test_user_by_name_brings_its_group_and_the_images_groups(pod: Pod) -> None:
    config = pod.container_config()
    config.linux.security_context.run_as_username = "alice"
    out = pod.shell("id -u; id -g; id -G", config)
    uid, gid, groups = out.splitlines()
    assert (uid, gid) == ("1000", "1000")
    assert {"1000", "50", "51"} <= set(groups.split())


def test_an_unknown_user_name_is_refused(pod: Pod) -> None:
    config = pod.container_config("true")
    config.linux.security_context.run_as_username = "mallory"
    assert code_of(lambda: pod.create(config=config)) != "OK"


def test_the_strict_policy_leaves_the_images_groups_out(ours: CriClient) -> None:
    pod = ours.run_pod()
    config = pod.container_config()
    context = config.linux.security_context
    context.run_as_username = "alice"
    context.supplemental_groups.append(777)
    context.supplemental_groups_policy = cri.Strict
    assert set(pod.shell("id -G", config).split()) == {"1000", "777"}


def test_capabilities_are_added_and_dropped(pod: Pod) -> None:
    default = int(pod.shell(CAP_EFFECTIVE), 16)
    config = pod.container_config()
    config.linux.security_context.capabilities.add_capabilities.append("NET_ADMIN")
    config.linux.security_context.capabilities.drop_capabilities.append("CHOWN")
    changed = int(pod.shell(CAP_EFFECTIVE, config), 16)
    assert changed == (default | 1 << 12) & ~1
    config = pod.container_config()
    config.linux.security_context.capabilities.drop_capabilities.append("ALL")
    config.linux.security_context.capabilities.add_capabilities.append("NET_BIND_SERVICE")
    assert int(pod.shell(CAP_EFFECTIVE, config), 16) == 1 << 10
    config = pod.container_config()
    config.linux.security_context.capabilities.add_capabilities.append("NO_SUCH_CAPABILITY")
    assert int(pod.shell(CAP_EFFECTIVE, config), 16) == default


def test_a_user_without_root_has_no_effective_capabilities(pod: Pod) -> None:
    config = pod.container_config()
    config.linux.security_context.run_as_user.value = 1000
    assert int(pod.shell(CAP_EFFECTIVE, config), 16) == 0


def test_a_read_only_root(pod: Pod) -> None:
    config = pod.container_config()
    config.linux.security_context.readonly_rootfs = True
    out = pod.shell("touch /x 2>&1; touch /dev/shm/y && echo shm", config)
    assert "Read-only file system" in out
    assert "shm" in out


def test_no_new_privileges(pod: Pod) -> None:
    config = pod.container_config()
    config.linux.security_context.no_new_privs = True
    assert pod.shell("grep NoNewPrivs /proc/self/status", config).split()[-1] == "1"
    assert pod.shell("grep NoNewPrivs /proc/self/status").split()[-1] == "0"


def test_masked_and_read_only_paths(pod: Pod) -> None:
    out = pod.shell(
        "cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic || echo refused; ls /sys/firmware | wc -l"
    )
    assert out.split() == ["0", "refused", "0"]


def test_seccomp_profiles(pod: Pod, tmp_path: Path) -> None:
    kinds = cri.SecurityProfile.ProfileType
    profile = tmp_path / "no-mkdir.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW",'
        '"syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}'
    )
    mode = "grep '^Seccomp:' /proc/self/status | awk '{print $2}'"
    for kind, reference, expected in (
        (kinds.Unconfined, "", "0"),
        (kinds.RuntimeDefault, "", "2"),
        (kinds.Localhost, f"localhost/{profile}", "2"),
    ):
        config = pod.container_config()
        given = reference if pod.client.name == "containerd" else reference.removeprefix("localhost/")
        config.linux.security_context.seccomp.CopyFrom(
            cri.SecurityProfile(profile_type=kind, localhost_ref=given.removeprefix("localhost/"))
        )
        out = pod.shell(f"{mode}; mkdir /made && echo made; unshare -m true 2>&1 && echo unshared", config)
        assert out.split()[0] == expected
        assert ("made" in out.split()) == (kind != kinds.Localhost)
    config = pod.container_config("true")
    config.linux.security_context.seccomp.CopyFrom(
        cri.SecurityProfile(profile_type=kinds.Localhost, localhost_ref=str(tmp_path / "absent.json"))
    )
    assert code_of(lambda: pod.run(config=config)) != "OK"


def test_mounts_are_made_with_their_access(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir()
    (tmp_path / "rw").mkdir()
    (tmp_path / "file").write_text("content")
    mounts = [
        cri.Mount(container_path="/ro", host_path=str(tmp_path / "ro"), readonly=True),
        cri.Mount(container_path="/rw", host_path=str(tmp_path / "rw")),
        cri.Mount(container_path="/rw/inner", host_path=str(tmp_path / "ro")),
        cri.Mount(container_path="/etc/hosts", host_path=str(tmp_path / "file")),
    ]
    config = pod.container_config(mounts=list(reversed(mounts)))
    out = pod.shell("touch /ro/x 2>&1; touch /rw/y && echo yes; cat /etc/hosts; ls -d /rw/inner", config)
    assert "Read-only" in out
    assert "yes" in out
    assert "content" in out
    assert "/rw/inner" in out
    assert (tmp_path / "rw/y").exists()


def test_a_host_path_that_is_not_there_becomes_a_directory(pod: Pod, tmp_path: Path) -> None:
    config = pod.container_config(mounts=[cri.Mount(container_path="/new", host_path=str(tmp_path / "a/b"))])
    assert pod.shell("touch /new/file && echo ok", config) == "ok\n"
    assert (tmp_path / "a/b/file").exists()


def test_a_device_can_be_given(pod: Pod) -> None:
    device = cri.Device(host_path="/dev/zero", container_path="/dev/my-zero", permissions="r")
    config = pod.container_config(devices=[device])
    assert pod.shell("head -c 3 /dev/my-zero | wc -c", config) == "3\n"


def test_resources_reach_the_cgroup(pod: Pod) -> None:
    config = pod.container_config("sleep", "1000")
    resources = config.linux.resources
    resources.cpu_shares, resources.cpu_quota, resources.cpu_period = 512, 50000, 100000
    resources.memory_limit_in_bytes = 64 * 1024 * 1024
    resources.oom_score_adj = 500
    container = pod.run(config=config)
    directory = _cgroup(pod, container.id, "memory")
    assert int((directory / _name("memory.limit_in_bytes", "memory.max")).read_text()) == 64 * 1024 * 1024
    assert container.exec_output("cat /proc/1/oom_score_adj") == "500\n"
    update = cri.LinuxContainerResources(memory_limit_in_bytes=96 * 1024 * 1024, cpu_quota=20000, cpu_period=100000)
    request = cri.UpdateContainerResourcesRequest(container_id=container.id, linux=update)
    pod.client.runtime.UpdateContainerResources(request)
    assert int((directory / _name("memory.limit_in_bytes", "memory.max")).read_text()) == 96 * 1024 * 1024


def test_a_negative_oom_score_is_clamped_where_it_is_not_allowed(pod: Pod) -> None:
    config = pod.container_config("sleep", "1000")
    config.linux.resources.oom_score_adj = -997
    container = pod.run(config=config)
    allowed = _capability_bit(24)
    assert int(container.exec_output("cat /proc/1/oom_score_adj")) == (-997 if allowed else _own_score())


def test_a_privileged_container_has_what_the_node_has(ours: CriClient) -> None:
    config = ours.pod_config()
    config.linux.security_context.privileged = True
    pod = ours.run_pod(config)
    container = pod.container_config()
    container.linux.security_context.privileged = True
    out = pod.shell(
        f"{CAP_EFFECTIVE}; ls /dev/null /dev/loop-control /dev/kmsg 2>/dev/null; touch /sys/x 2>&1", container
    )
    assert int(out.split()[0], 16) == _bounding()
    assert "Read-only" not in out


def test_status_tells_the_user(ours: CriClient) -> None:
    pod = ours.run_pod()
    config = pod.container_config("sleep", "1000")
    config.linux.security_context.run_as_username = "alice"
    user = pod.run(config=config).status().user.linux
    assert (user.uid, user.gid) == (1000, 1000)
    assert {50, 51} <= set(user.supplemental_groups)


def _name(version1: str, version2: str) -> str:
    return version2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else version1


def _cgroup(pod: Pod, container_id: str, controller: str) -> Path:
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists():
        root = root / controller
    return root / pod.client.cgroup_parent.lstrip("/") / container_id


def _bounding() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(line.split()[1], 16)


def _capability_bit(number: int) -> bool:
    return bool(_bounding() >> number & 1)


def _own_score() -> int:
    return int(Path(f"/proc/{os.getpid()}/oom_score_adj").read_text())
