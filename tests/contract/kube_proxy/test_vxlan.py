"""The commands of the tunnel, taken by the real `ip` and `bridge`: a packet between nodes that are no neighbours."""

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
CLIENT = "import socket, sys; print(socket.create_connection((sys.argv[1], 8080), 5).recv(9).decode())"


def test_a_connection_goes_through_the_tunnel():
    with namespace() as a, namespace() as b:
        a.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", str(b.pid))
        for here, there, me in (("a", "b", a), ("b", "a", b)):
            (own, own_pods), (other, other_pods) = NODES[here], NODES[there]
            me.run("ip", "address", "add", f"{own}/32", "dev", "wire")
            me.run("ip", "link", "set", "wire", "up")
            # As by a router: the other node is reached, but is on no network of ours.
            me.run("ip", "route", "add", other, "dev", "wire")
            me.run("ip", "-batch", "-", stdin="\n".join(network.vxlan_device(own, own_pods, 1500)) + "\n")
            routes, entries = network.commands("replace", other_pods, Hop(other, vxlan=True))
            me.run("bridge", "-batch", "-", stdin="\n".join(entries) + "\n")
            me.run("ip", "-batch", "-", stdin="\n".join(routes) + "\n")
        server = subprocess.Popen(
            ["nsenter", f"--net=/proc/{b.pid}/ns/net", "--", "python3", "-c", SERVER], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip() == "ready"
            target = str(ipaddress.ip_network(NODES["b"][1])[0])
            assert a.run("python3", "-c", CLIENT, target).strip() == "hello"
        finally:
            server.kill()
            server.wait()
        routes, entries = network.commands("delete", NODES["b"][1], Hop(NODES["b"][0], vxlan=True))
        a.run("bridge", "-batch", "-", stdin="\n".join(entries) + "\n")
        a.run("ip", "-batch", "-", stdin="\n".join(routes) + "\n")
        assert "10.244.1.0" not in a.run("ip", "route")


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
