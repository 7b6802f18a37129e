"""Pod sandboxes: states, filters, idempotence, namespaces."""

import ipaddress

import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, code_of


def test_a_new_sandbox_is_ready_with_an_address_and_its_metadata(client: CriClient) -> None:
    config = client.pod_config(labels={"app": "web"}, annotations={"note": "kept"})
    status = client.run_pod(config).status()
    assert status.state == cri.SANDBOX_READY
    assert status.metadata == config.metadata
    assert dict(status.labels) == {"app": "web"}
    assert dict(status.annotations) == {"note": "kept"}
    assert ipaddress.ip_address(status.network.ip)
    assert status.created_at > 0
    assert status.linux.namespaces.options.pid == cri.CONTAINER


def test_stop_makes_it_not_ready_and_may_be_repeated(client: CriClient) -> None:
    pod = client.run_pod()
    pod.stop()
    assert pod.status().state == cri.SANDBOX_NOTREADY
    assert pod.status().network.ip == ""
    pod.stop()
    pod.remove()
    pod.remove()
    assert code_of(pod.status) == "NOT_FOUND"


def test_remove_of_a_ready_sandbox_takes_its_containers_along(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.run("sleep", "1000")
    pod.stop()
    pod.remove()
    assert code_of(container.status) == "NOT_FOUND"
    assert client.containers() == []


def test_a_name_can_be_taken_once(client: CriClient) -> None:
    config = client.pod_config("twice")
    pod = client.run_pod(config)
    assert code_of(lambda: client.run_pod(config)) != "OK"
    pod.stop()
    pod.remove()
    assert client.run_pod(config).status().state == cri.SANDBOX_READY


def test_lists_are_filtered_by_id_state_and_labels(client: CriClient) -> None:
    first = client.run_pod(client.pod_config(labels={"app": "a", "tier": "x"}))
    second = client.run_pod(client.pod_config(labels={"app": "b", "tier": "x"}))
    second.stop()
    ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
    assert {item.id for item in client.sandboxes()} == {first.id, second.id}
    assert [item.id for item in client.sandboxes(state=ready)] == [first.id]
    assert [item.id for item in client.sandboxes(id=second.id[:20])] == [second.id]
    assert [item.id for item in client.sandboxes(label_selector={"app": "b"})] == [second.id]
    assert len(client.sandboxes(label_selector={"tier": "x"})) == 2
    assert client.sandboxes(label_selector={"app": "a", "tier": "y"}) == []
    assert client.sandboxes(id="0123") == []


def test_an_unknown_id_is_not_found(client: CriClient) -> None:
    request = cri.PodSandboxStatusRequest(pod_sandbox_id="f" * 64)
    assert code_of(lambda: client.runtime.PodSandboxStatus(request)) == "NOT_FOUND"


def test_containers_of_a_pod_share_network_host_name_and_memory(client: CriClient) -> None:
    pod = client.run_pod(client.pod_config(hostname="my-host"))
    first, second = pod.run("sleep", "1000"), pod.run("sleep", "1000")
    assert first.exec_output("hostname") == second.exec_output("hostname") == "my-host\n"
    for kind in ("net", "ipc", "uts"):
        link = f"readlink /proc/self/ns/{kind}"
        assert first.exec_output(link) == second.exec_output(link)
    first.exec_output("echo shared > /dev/shm/file")
    assert second.exec_output("cat /dev/shm/file") == "shared\n"
    assert first.exec_output("readlink /proc/self/ns/pid") != second.exec_output("readlink /proc/self/ns/pid")
    assert pod.status().network.ip in first.exec_output("ip addr show eth0")
    assert "UP" in first.exec_output("ip addr show lo")


def test_dns_settings_become_resolv_conf(client: CriClient) -> None:
    dns = cri.DNSConfig(servers=["10.96.0.10"], searches=["a.example", "b.example"], options=["ndots:5"])
    pod = client.run_pod(client.pod_config(dns_config=dns))
    lines = pod.shell("cat /etc/resolv.conf").splitlines()
    assert sorted(lines) == ["nameserver 10.96.0.10", "options ndots:5", "search a.example b.example"]


def test_a_shared_pid_namespace_shows_all_processes_and_reaps_orphans(client: CriClient) -> None:
    config = client.pod_config()
    config.linux.security_context.namespace_options.pid = cri.POD
    pod = client.run_pod(config)
    first, second = pod.run("sleep", "1111"), pod.run("sleep", "2222")
    assert "sleep 2222" in first.exec_output("ps")
    assert first.exec_output("readlink /proc/self/ns/pid") == second.exec_output("readlink /proc/self/ns/pid")
    first.exec_output("(sleep 0.05 &) ; true")
    assert " Z " not in first.exec_output("sleep 0.2; ps -o stat,comm")
    first.stop(0)
    assert second.status().state == cri.CONTAINER_RUNNING


@pytest.mark.parametrize("kind", ["network", "ipc", "pid"])
def test_the_nodes_namespaces_can_be_used(client: CriClient, kind: str) -> None:
    config = client.pod_config(hostname="")
    setattr(config.linux.security_context.namespace_options, kind, cri.NODE)
    pod = client.run_pod(config)
    name = {"network": "net"}.get(kind, kind)
    import os

    assert pod.shell(f"readlink /proc/self/ns/{name}").strip() == os.readlink(f"/proc/self/ns/{name}")
    if kind == "network":
        assert pod.status().network.ip == ""


def test_safe_sysctls_are_set_inside(client: CriClient) -> None:
    config = client.pod_config()
    config.linux.sysctls["net.ipv4.ip_unprivileged_port_start"] = "80"
    config.linux.sysctls["kernel.shm_rmid_forced"] = "1"
    pod = client.run_pod(config)
    out = pod.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced")
    assert out == "80\n1\n"
    assert client.run_pod().shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "1024\n"


def test_an_unknown_runtime_handler_is_refused(client: CriClient) -> None:
    request = cri.RunPodSandboxRequest(config=client.pod_config(), runtime_handler="nothing")
    assert code_of(lambda: client.runtime.RunPodSandbox(request)) != "OK"
    assert client.sandboxes() == []


def test_version_and_conditions(client: CriClient) -> None:
    version = client.runtime.Version(cri.VersionRequest())
    assert version.runtime_api_version == "v1"
    assert version.version == "0.1.0"
    status = client.runtime.Status(cri.StatusRequest()).status
    assert {c.type: c.status for c in status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
