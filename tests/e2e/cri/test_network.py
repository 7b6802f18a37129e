"""Pod networks: host ports, the network written from the pod CIDR, what happens without one."""

import json
import socket

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.containerd import wait_until

HOST_PORT = 21510


def _answer(host: str, port: int) -> bytes:
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_a_host_port_leads_to_the_pod_and_ends_with_it(node) -> None:
    config = node.client.pod_config()
    config.port_mappings.add(host_port=HOST_PORT, container_port=8080, protocol=cri.TCP)
    pod = node.client.run_pod(config)
    pod.run("sh", "-c", "while true; do echo from-pod | nc -l -p 8080; done").wait_listening(8080)
    gateway = pod.status().network.ip.rsplit(".", 1)[0] + ".1"
    wait_until(lambda: _answer(gateway, HOST_PORT) == b"from-pod\n", what="an answer through the host port")
    pod.stop()
    assert _answer(gateway, HOST_PORT) == b""


def test_pods_reach_each_other(node) -> None:
    first, second = node.client.run_pod(), node.client.run_pod()
    first.run("sh", "-c", "while true; do echo hi | nc -l -p 80; done").wait_listening(80)
    address = first.status().network.ip
    assert second.shell(f"nc -w 5 {address} 80 < /dev/null") == "hi\n"
    assert first.status().network.ip != second.status().network.ip


def test_without_a_network_the_runtime_says_so_and_host_pods_still_run(node) -> None:
    conf = next(node.containerd.cni_conf.iterdir())
    aside = conf.with_suffix(".aside")
    conf.rename(aside)
    try:
        conditions = node.client.runtime.Status(cri.StatusRequest()).status.conditions
        network = next(condition for condition in conditions if condition.type == "NetworkReady")
        assert not network.status
        assert str(node.containerd.cni_conf) in network.message
        with pytest.raises(grpc.RpcError, match="no CNI configuration"):
            node.client.run_pod()
        config = node.client.pod_config()
        config.linux.security_context.namespace_options.network = cri.NODE
        assert node.client.run_pod(config).shell("echo ok") == "ok\n"
    finally:
        aside.rename(conf)
    assert node.client.run_pod().status().network.ip


def test_an_edited_network_does_not_strand_what_the_old_one_made(node) -> None:
    pod = node.client.run_pod()
    address = pod.status().network.ip
    conf = next(node.containerd.cni_conf.iterdir())
    good = conf.read_text()
    leases = node.directory / "containerd/ipam" / node.containerd.bridge
    assert (leases / address).exists()
    try:
        conf.write_text('{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"loopback"}]}')
        pod.stop()
        pod.remove()
    finally:
        conf.write_text(good)
    assert not (leases / address).exists()


def test_another_plugin_makes_the_network_by_configuration_alone(node) -> None:
    conf = next(node.containerd.cni_conf.iterdir())
    good = conf.read_text()
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.213.77.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(node.directory / "other-ipam"),
    }
    # Routed links instead of a bridge, and a smaller MTU.
    routed = {"type": "ptp", "mtu": 1400, "ipam": ipam}
    conf.write_text(json.dumps({"cniVersion": "1.0.0", "name": "routed", "plugins": [routed]}))
    try:
        first, second = node.client.run_pod(), node.client.run_pod()
        first.run("sh", "-c", "while true; do echo hi | nc -l -p 80; done").wait_listening(80)
        address = first.status().network.ip
        assert address.startswith("10.213.77.")
        assert second.shell(f"nc -w 5 {address} 80 < /dev/null") == "hi\n"
        assert second.shell("cat /sys/class/net/eth0/mtu") == "1400\n"
        node.client.remove_everything()
    finally:
        conf.write_text(good)


def test_mount_propagation_and_recursive_read_only(node) -> None:
    from cri import kernel

    source = node.directory / "propagation"
    (source / "inner").mkdir(parents=True)
    kernel.mount("tmpfs", str(source), "tmpfs")
    (source / "inner").mkdir()
    kernel.mount("tmpfs", str(source / "inner"), "tmpfs")
    try:
        pod = node.client.run_pod()
        mount = cri.Mount(container_path="/m", host_path=str(source), readonly=True, recursive_read_only=True)
        config = pod.container_config(mounts=[mount])
        assert pod.shell("touch /m/inner/x 2>&1 | grep -c Read-only", config) == "1\n"
        mount = cri.Mount(container_path="/m", host_path=str(source), propagation=cri.PROPAGATION_HOST_TO_CONTAINER)
        container = pod.run("sleep", "1000", config=pod.container_config("sleep", "1000", mounts=[mount]))
        (source / "late").mkdir()
        kernel.mount("tmpfs", str(source / "late"), "tmpfs")
        (source / "late/file").touch()
        seen = container.exec_output("ls /m/late")
        assert seen == ("file\n" if _is_shared(source) else "")
        container.remove()
    finally:
        for name in ("late", "inner", ""):
            kernel.unmount(str(source / name))


def _is_shared(path) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return any(line.split()[4] == str(path) and "shared:" in line for line in file)
