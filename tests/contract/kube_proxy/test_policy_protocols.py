"""NetworkPolicies for UDP and SCTP with real packets: what a rule names passes, its neighbours do not.

    client 10.244.0.3 ── node (the rules) ── 10.244.0.2 server

SCTP's packets are made on raw sockets, as in test_sctp.py: what is judged is what the node lets through.
"""

import json
import os
import shutil
import subprocess

import pytest

from services.kube_proxy.nft import Names
from services.kube_proxy.policy import render
from services.kube_proxy.policy.plan import Plan, plan
from tests.support.netns import namespace
from tests.support.policy_objects import NAMESPACES, pod, policy
from tests.support.sctp_packets import SCTP

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
SERVER_IP, CLIENT_IP, CIDR = "10.244.0.2", "10.244.0.3", "10.244.0.0/24"
# A number, the ends of a range and a name, and what is beside each.
UDP_OPEN, UDP_SHUT = [5353, 6000, 6005, 5060], [5352, 5999, 6006, 5061]
SCTP_OPEN, SCTP_SHUT = 36412, 36413
PORTS = [
    {"protocol": "UDP", "port": 5353},
    {"protocol": "UDP", "port": 6000, "endPort": 6005},
    {"protocol": "UDP", "port": "sip"},
    {"protocol": "SCTP", "port": SCTP_OPEN},
]
SERVER = (
    SCTP
    + """
import select
raw.setblocking(False)
sockets = [raw]
for port in json.loads(sys.argv[1]):
    sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sockets[-1].bind(("", port))
print("ready", flush=True)
while True:
    for ready in select.select(sockets, [], [])[0]:
        if ready is raw:
            got = take(raw)
            answer = packet(got["destination"], got["source"], got["own_tag"], 2, 77)
            raw.sendto(answer, (got["from"], 0))
        else:
            data, sender = ready.recvfrom(100)
            ready.sendto(data, sender)
"""
)
# What must not pass is sent first: it would have been answered before what must.
CLIENT = (
    SCTP
    + """
import select, time
server, first, then, sctp_first, sctp_then = json.loads(sys.argv[1])
raw.setblocking(False)
sockets = {raw: None}
def ask(port):
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.connect((server, port))
    asking.send(b"x")
    sockets[asking] = port
def associate(port):
    raw.sendto(packet(40000, port, 0, 1, 55), (server, 0))
for ports, associations in ((first, sctp_first), (then, sctp_then)):
    for port in ports: ask(port)
    for port in associations: associate(port)
answered, deadline = set(), time.monotonic() + 10
while not answered >= {*then, *sctp_then} and time.monotonic() < deadline:
    for ready in select.select(list(sockets), [], [], 0.2)[0]:
        try:
            if ready is raw:
                answered.add(take(raw)["source"])
            else:
                ready.recv(100)
                answered.add(sockets[ready])
        except ConnectionError:
            pass
for ready in select.select(list(sockets), [], [], 0.2)[0]:
    if ready is not raw and sockets[ready] not in answered:
        answered.add(sockets[ready])
print(json.dumps(sorted(answered)))
"""
)
DIRECTIONS = {
    "ingress": policy(
        podSelector={"matchLabels": {"app": "server"}},
        policyTypes=["Ingress"],
        ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": PORTS}],
    ),
    "egress": policy(
        podSelector={"matchLabels": {"app": "client"}},
        policyTypes=["Egress"],
        egress=[{"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": PORTS}],
    ),
}


def planned(*policies):
    server, client = pod("server", SERVER_IP), pod("client", CLIENT_IP)
    for container in server.spec.containers:
        container.ports = [*container.ports, *pod("x", "", ports=[("sip", 5060)]).spec.containers[0].ports]
        container.ports[-1].protocol = "UDP"
    return plan(list(policies), [server, client], NAMESPACES, "n1", CIDR) if policies else Plan()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_udp_and_sctp_pass_where_a_rule_names_them_and_nowhere_else(direction):
    isolated = planned(DIRECTIONS[direction])
    with namespace() as node, namespace() as server, namespace() as client:
        for name, inside, own in (("to-server", server, SERVER_IP), ("to-client", client, CLIENT_IP)):
            inside.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", str(node.pid))
            inside.run("ip", "address", "add", f"{own}/32", "dev", "eth0")
            inside.run("ip", "link", "set", "eth0", "up")
            inside.run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
            inside.run("ip", "route", "add", "default", "via", "169.254.1.1")
            node.run("ip", "address", "add", "169.254.1.1/32", "dev", name)
            node.run("ip", "link", "set", name, "up")
            node.run("ip", "route", "add", own, "dev", name)
        node.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        node.run("nft", "-f", "-", stdin=render.adopt(isolated, Names()))
        serving = subprocess.Popen(
            [
                "nsenter", f"--net=/proc/{server.pid}/ns/net", "--",
                "python3", "-c", SERVER, json.dumps(UDP_OPEN + UDP_SHUT),
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

        def answered(*asked):
            return set(json.loads(client.run("python3", "-c", CLIENT, json.dumps([SERVER_IP, *asked]))))

        try:
            assert serving.stdout is not None
            assert serving.stdout.readline().strip() == "ready"
            assert answered(UDP_SHUT, UDP_OPEN, [SCTP_SHUT], [SCTP_OPEN]) == {*UDP_OPEN, SCTP_OPEN}
            # The policy goes: all of them were only kept away by it.
            node.run("nft", "-f", "-", stdin=render.difference(isolated, planned()))
            every = [*UDP_OPEN, *UDP_SHUT], [SCTP_OPEN, SCTP_SHUT]
            assert answered([], every[0], [], every[1]) == {*every[0], *every[1]}
        finally:
            serving.kill()
            serving.wait()
