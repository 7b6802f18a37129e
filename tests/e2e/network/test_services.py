"""Services on real packets: every kind of address, both policies, affinity, UDP, hairpin, restarts and changes."""

import contextlib
import socket
import subprocess
import threading

import pytest

from tests.support.lab_cluster import eventually

from .conftest import http_get, pod, service

pytestmark = pytest.mark.root


def answers(net, address, count=12, client="client"):
    script = f"for i in $(seq {count}); do timeout 2 wget -qO- http://{address}/ || echo none; done"
    return [tuple(line.split()) for line in net.exec(client, "sh", "-c", script).splitlines()]


def test_a_cluster_ip_reaches_every_endpoint_and_keeps_the_pods_own_address(net):
    net.apply(service("plain"))
    address = net.cluster_ip("plain")
    eventually(lambda: net.ask("client", address), seconds=10)
    got = answers(net, address, 20)
    assert {who for who, _ in got} == {"a", "b"}
    assert {client for _, client in got} == {net.ip("client")}


def test_a_pod_reaches_itself_through_its_service(net):
    net.apply(service("loop", selector={"app": "client"}))
    address = net.cluster_ip("loop")
    who, client = eventually(lambda: net.ask("client", address), seconds=10)
    assert (who, client != net.ip("client")) == ("client", True)


def test_the_apiserver_is_reachable_as_kubernetes_default(net):
    said = net.exec("client", "sh", "-c", "echo | nc -w2 kubernetes.default 443 && echo open")
    assert "open" in said


def test_node_ports_answer_on_every_node_and_external_addresses_too(net):
    net.apply(service("outside", type="NodePort", externalIPs=["192.0.2.77"]))
    port = net.node_port("outside")
    for node in ("node1", "node2"):
        eventually(lambda node=node: http_get(net.cluster.node_ip(node), port), seconds=10)
    assert eventually(lambda: net.ask("client", "192.0.2.77"), seconds=10)


def test_an_external_local_policy_keeps_the_source_and_tells_a_balancer_by_health_checks(net):
    net.apply(pod("local", "node1", {"app": "local"}))
    net.wait_ready("local")
    net.apply(service("kept", type="LoadBalancer", externalTrafficPolicy="Local", selector={"app": "local"}))
    port = net.node_port("kept")
    check = eventually(lambda: net.get("service", "kept")["spec"].get("healthCheckNodePort"), seconds=10)
    here, there = net.cluster.node_ip("node1"), net.cluster.node_ip("node2")
    _, client = eventually(lambda: http_get(here, port), seconds=10)
    assert client == here.rsplit(".", 1)[0] + ".1"
    with pytest.raises(OSError):
        http_get(there, port, timeout=1)

    def healthy(node):
        answer = subprocess.run(
            ["curl", "-s", "-o/dev/null", "-w%{http_code}", f"http://{node}:{check}/"], capture_output=True
        )
        return answer.stdout.decode()

    eventually(lambda: (healthy(here), healthy(there)) == ("200", "503"), seconds=10)
    # A pod of the other node is not outside.
    assert net.ask("b", f"{there}:{port}") == ("local", net.ip("b"))


def test_an_internal_local_policy_stays_on_the_node(net):
    net.apply(service("near", internalTrafficPolicy="Local"))
    address = net.cluster_ip("near")
    eventually(lambda: net.ask("client", address), seconds=10)
    assert {who for who, _ in answers(net, address)} == {"a"}


def test_affinity_keeps_a_client_with_its_endpoint_over_a_restart_of_the_proxy(net):
    net.apply(service("sticky", sessionAffinity="ClientIP"))
    address = net.cluster_ip("sticky")
    eventually(lambda: net.ask("client", address), seconds=10)
    (first,) = {who for who, _ in answers(net, address)}
    net.cluster.cutaway("restart", "kube-proxy-node1")
    eventually(lambda: net.cluster.status()["kube-proxy-node1"]["health"] == "ok", seconds=20)
    assert {who for who, _ in answers(net, address)} == {first}


def test_without_endpoints_a_connection_is_refused_at_once(net):
    net.apply(service("empty", type="NodePort", selector={"app": "nobody"}))
    address, port = net.cluster_ip("empty"), net.node_port("empty")
    eventually(
        lambda: "refused" in net.exec("client", "sh", "-c", f"timeout 5 wget -qO- http://{address}/ 2>&1 || true"),
        seconds=10,
    )
    with pytest.raises(ConnectionRefusedError):
        http_get(net.cluster.node_ip("node1"), port)


def udp_server(stack, host, name):
    """A UDP server on this machine that answers with its name; its port."""
    server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((host, 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                server.sendto(name.encode(), server.recvfrom(100)[1])

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def udp_slice(name, ip, port):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"udp-{name}", "labels": {"kubernetes.io/service-name": "udp"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip]}],
        "ports": [{"name": "udp", "port": port, "protocol": "UDP"}],
    }


def test_udp_flows_follow_the_endpoints(net):
    node = net.cluster.node_ip("node1")
    host = node.rsplit(".", 1)[0] + ".1"
    ports = [{"name": "udp", "port": 53, "protocol": "UDP"}]
    net.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "udp"},
            "spec": {"type": "NodePort", "ports": ports},
        }
    )
    port = net.node_port("udp")
    with contextlib.ExitStack() as stack:
        slices = {name: udp_slice(name, host, udp_server(stack, host, name)) for name in ("u1", "u2")}
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(0.3)
        client.connect((node, port))

        def ask():
            client.send(b"x")
            return client.recv(100).decode()

        net.apply(slices["u1"])
        assert eventually(ask, seconds=10) == "u1"
        net.apply(slices["u2"])
        assert {ask() for _ in range(5)} == {"u1"}
        net.delete("endpointslice", "udp-u1")
        # The socket keeps its port, so without a cleared entry it would never reach the other one.
        eventually(lambda: ask() == "u2", seconds=10)


def test_no_connection_fails_while_endpoints_change_and_the_proxy_restarts(net):
    net.apply(service("busy", type="NodePort"))
    node, port = net.cluster.node_ip("node1"), net.node_port("busy")
    eventually(lambda: http_get(node, port), seconds=10)
    stop, failures, done = threading.Event(), [], []

    def load():
        while not stop.is_set():
            try:
                done.append(http_get(node, port)[0])
            except (OSError, IndexError) as error:
                failures.append(repr(error))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        for turn in range(20):
            for name, app in (("b", "gone"), ("b", "echo")):
                net.cluster.kubectl("label", "pod", "-n", net.namespace, name, f"app={app}", "--overwrite")
            if turn == 10:
                net.cluster.cutaway("restart", "kube-proxy-node1")
    finally:
        stop.set()
        thread.join(5)
    assert failures == []
    assert len(done) > 100
    assert set(done) == {"a", "b"}
