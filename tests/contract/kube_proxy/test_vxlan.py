"""The commands of the tunnel, taken by the real `ip` and `bridge`: a packet between nodes that are no neighbours."""

import ipaddress
import os
import shutil
import subprocess

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
