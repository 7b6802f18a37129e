"""The commands of the tunnel, taken by the real `ip` and `bridge`: a packet between nodes that are no neighbours."""

import contextlib
import ipaddress
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.kube_proxy import network
from services.kube_proxy.network import Hop
from tests.support.netns import namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("bridge") is None, reason="needs root and iproute2")
NODES = {"a": ("192.0.2.1", "10.244.0.0/24"), "b": ("198.51.100.1", "10.244.1.0/24")}
SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 8080))
print("ready", flush=True)
server.accept()[0].send(b"hello")
"""
CLIENT = """
import socket, sys
one = socket.create_connection((sys.argv[1], 8080), 5)
print(one.recv(9).decode(), one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""


def join(me, own, other):
    """Make a node of a namespace: its side of the wire, its tunnel, its route to the other's pods."""
    (own_ip, own_pods), (other_ip, other_pods) = own, other
    me.run("ip", "address", "add", f"{own_ip}/32", "dev", "wire")
    me.run("ip", "link", "set", "wire", "up")
    # As by a router: the other node is reached, but is on no network of ours.
    me.run("ip", "route", "add", other_ip, "dev", "wire")
    me.run("ip", "-batch", "-", stdin="\n".join(network.vxlan_device(own_ip, own_pods, 1500)) + "\n")
    routes, entries = network.commands("replace", other_pods, Hop(other_ip, vxlan=True))
    me.run("bridge", "-batch", "-", stdin="\n".join(entries) + "\n")
    me.run("ip", "-batch", "-", stdin="\n".join(routes) + "\n")


def add_pod(pod, node, cidr):
    """A pod of the usual MTU behind a node; its address."""
    gateway, address = ipaddress.ip_network(cidr)[1], ipaddress.ip_network(cidr)[2]
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "pod", "netns", str(node.pid))
    pod.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    pod.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "link", "set", "pod", "up")
    node.run("ip", "address", "add", f"{gateway}/24", "dev", "pod")
    pod.run("ip", "route", "add", "default", "via", str(gateway))
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    return str(address)


@contextlib.contextmanager
def two_nodes():
    with namespace() as a, namespace() as b:
        a.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", str(b.pid))
        join(a, NODES["a"], NODES["b"])
        join(b, NODES["b"], NODES["a"])
        yield a, b


@contextlib.contextmanager
def serving(place):
    server = subprocess.Popen(
        ["nsenter", f"--net=/proc/{place.pid}/ns/net", "--", "python3", "-c", SERVER], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        yield
    finally:
        server.kill()
        server.wait()


def test_a_connection_goes_through_the_tunnel():
    with two_nodes() as (a, b):
        target = str(ipaddress.ip_network(NODES["b"][1])[0])
        with serving(b):
            assert a.run("python3", "-c", CLIENT, target).split()[0] == "hello"
        routes, entries = network.commands("delete", NODES["b"][1], Hop(NODES["b"][0], vxlan=True))
        a.run("bridge", "-batch", "-", stdin="\n".join(entries) + "\n")
        a.run("ip", "-batch", "-", stdin="\n".join(routes) + "\n")
        assert "10.244.1.0" not in a.run("ip", "route")


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_pods_of_the_usual_mtu_agree_on_segments_that_fit_the_tunnel():
    with two_nodes() as (a, b), namespace() as client, namespace() as server:
        add_pod(client, a, NODES["a"][1])
        target = add_pod(server, b, NODES["b"][1])
        sizes = []
        for rules in ("", network.way_out("10.244.0.0/16")):
            for node in (a, b):
                node.run("nft", "-f", "-", stdin=rules)
            with serving(server):
                said, size = client.run("python3", "-c", CLIENT, target).split()
                assert said == "hello"
                sizes.append(int(size))
        # 52 bytes are headers, with TCP's time stamps.
        assert sizes == [1500 - 52, 1500 - network.VXLAN_OVERHEAD_BYTES - 52]


ROUTES = """
import asyncio, sys
import msgspec
from services.kube_proxy import api, network

def node(name, ip, cidr):
    status = {"addresses": [{"type": "InternalIP", "address": ip}]}
    return msgspec.convert({"metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": status}, api.Node)

async def main():
    pods = network.PodNetwork("a", "10.244.0.0/16", None)
    nodes = [node("a", "192.0.2.1", "10.244.0.0/24"), node("b", "192.0.2.2", "10.244.1.0/24")]
    for line in sys.stdin:
        await pods.update(nodes)
        print("done", flush=True)

asyncio.run(main())
"""


def test_routes_that_went_with_their_interface_come_back():
    with namespace() as a:
        for command in ("link add wire type veth peer name other", "link set other up", "link set wire up"):
            a.run("ip", *command.split())
        a.run("ip", "address", "add", "192.0.2.1/24", "dev", "wire")
        proxy = subprocess.Popen(
            ["nsenter", f"--net=/proc/{a.pid}/ns/net", "--", sys.executable, "-c", ROUTES],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert proxy.stdin is not None
        assert proxy.stdout is not None

        def update():
            proxy.stdin.write("again\n")
            proxy.stdin.flush()
            while "done" not in proxy.stdout.readline():
                assert proxy.poll() is None

        try:
            update()
            assert "10.244.1.0/24 via 192.0.2.2" in a.run("ip", "route")
            a.run("ip", "link", "set", "wire", "down")
            a.run("ip", "link", "set", "wire", "up")
            assert "10.244.1.0/24" not in a.run("ip", "route")
            update()
            assert "10.244.1.0/24 via 192.0.2.2" in a.run("ip", "route")
        finally:
            proxy.kill()
            proxy.wait()
