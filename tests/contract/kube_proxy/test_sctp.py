"""SCTP through the rules of a Service, with real packets: a client's INIT reaches the endpoint with a right checksum,
and the endpoint's INIT ACK comes back from the Service's address.

The packets are made and read on raw sockets, so that it runs where the kernel has no SCTP sockets of its own; what is
judged is what the node does to them: nftables' match, address translation and connection tracking.
"""

import json
import os
import shutil
import subprocess

import pytest

from services.kube_proxy.nft import Names
from services.kube_proxy.ruleset import Settings, service_ports
from services.kube_proxy.table import Table
from tests.support.netns import namespace
from tests.support.sctp_packets import SCTP
from tests.support.service_objects import READY, pieces, service

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
CLIENT, NODE, SERVICE, ENDPOINT = "192.0.2.2", "192.0.2.1", "10.96.0.5", "10.244.0.2"
SERVER = (
    SCTP
    + """
print("ready", flush=True)
got = take(raw)
raw.sendto(packet(got["destination"], got["source"], got["own_tag"], 2, 77), (got["from"], 0))
print(json.dumps(got), flush=True)
"""
)
ASK = SCTP + """raw.sendto(packet(40000, 36412, 0, 1, 55), (sys.argv[1], 0)); print(json.dumps(take(raw)))"""


@pytest.mark.parametrize("address", [SERVICE, NODE], ids=["cluster address", "node port"])
def test_an_association_begins_through_a_service(address):
    number = 36412
    port = {"name": "s1", "port": number, "protocol": "SCTP", "nodePort": number}
    rules = Table(Settings("n1", "10.244.0.0/16")).adopt(
        service_ports(
            service(type="NodePort", ports=[port]),
            pieces((ENDPOINT, "n1", READY), name="s1", protocol="SCTP", port=9000),
            Settings("n1", "10.244.0.0/16"),
        ),
        Names(),
    )
    with namespace() as client, namespace() as node, namespace() as pod:
        for name, inside, own, gateway in (
            ("to-client", client, CLIENT, NODE),
            ("to-pod", pod, ENDPOINT, "10.244.0.1"),
        ):
            inside.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", str(node.pid))
            inside.run("ip", "address", "add", f"{own}/24", "dev", "eth0")
            inside.run("ip", "link", "set", "eth0", "up")
            inside.run("ip", "route", "add", "default", "via", gateway)
            node.run("ip", "address", "add", f"{gateway}/24", "dev", name)
            node.run("ip", "link", "set", name, "up")
        node.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        node.run("nft", "-f", "-", stdin=rules)
        server = subprocess.Popen(
            ["nsenter", f"--net=/proc/{pod.pid}/ns/net", "--", "python3", "-c", SERVER],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip() == "ready"
            answer = json.loads(client.run("python3", "-c", ASK, address))
            arrived = json.loads(server.stdout.readline())
        finally:
            server.kill()
            server.wait()
    # From outside: the node puts its own address in the place of the client's, so that the answer returns by way of it.
    assert (arrived["from"], arrived["destination"], arrived["chunk"]) == ("10.244.0.1", 9000, 1)
    assert arrived["sum_is_right"]
    assert (answer["from"], answer["source"], answer["destination"]) == (address, number, 40000)
    assert (answer["chunk"], answer["tag"], answer["sum_is_right"]) == (2, 55, True)
