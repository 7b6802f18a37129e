"""A host whose firewall drops what is forwarded, as one with a Docker engine does, still carries the nodes' packets."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iptables") is None or shutil.which("nft") is None,
    reason="needs root, iptables and nft",
)
# Runs as a host of its own: its network, its mounts and its /run.
HOST = """
import subprocess, sys
from lab import network

def sh(line, check=True):
    return subprocess.run(line, shell=True, check=check, capture_output=True, text=True)

def reached(pin, address):
    # Nobody listens there, so a refusal is the answer of a host that was reached.
    knock = f"import socket; print(socket.socket().connect_ex(('{address}', 9)) == errno.ECONNREFUSED)"
    knock = f"import errno, socket; socket.setdefaulttimeout(5); {knock}"
    return sh(f'nsenter --net={pin} -- {sys.executable} -c "{knock}"').stdout.strip()

sh("mount -t tmpfs tmpfs /run; ip link set lo up; ip link add outside type veth peer name beyond")
sh("ip address add 198.51.100.1/24 dev outside; ip link set outside up; ip link set beyond up")
beyond = "nsenter --net=/run/beyond -- ip"
sh("touch /run/beyond; unshare --net=/run/beyond true; ip link set beyond netns /run/beyond")
sh(f"{beyond} address add 198.51.100.2/24 dev beyond; {beyond} link set beyond up")
sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
before, after = sys.argv[1] == "before", sys.argv[1] == "after"
addresses = network.Addresses(9)
if before:
    sh("iptables -P FORWARD DROP")
network.ensure_bridge(addresses)
pins = [network.ensure_node(addresses, f"node{n + 1}", n) for n in range(2)]
network.ensure_bridge(addresses)  # as by a second `cutaway up`
if after:
    sh("iptables -P FORWARD DROP")
print("rules", sh("iptables -S FORWARD").stdout.count("comment cutaway"))
print("neighbour", reached(pins[0], addresses.node_ip(1)))
print("outside", reached(pins[0], "198.51.100.2"))
for n in range(2):
    network.remove_node(addresses, f"node{n + 1}", n)
network.remove_bridge(addresses)
print("left", sh("iptables -S FORWARD; nft list tables; ip link show type bridge").stdout.count("cutaway"))
"""


@pytest.mark.parametrize("policy", ["before", "after"])
def test_nodes_reach_each_other_and_the_outside_past_a_policy_that_drops(policy, tmp_path):
    (tmp_path / "dockerd").write_text("#!/bin/sh\n")
    (tmp_path / "dockerd").chmod(0o755)
    # Where the engine starts after the cluster, that it is installed must be enough.
    path = f"{tmp_path}:{os.environ['PATH']}" if policy == "after" else os.environ["PATH"]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, "-c", HOST, policy],
        capture_output=True, text=True, timeout=60, env=dict(os.environ) | {"PATH": path},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["rules 2", "neighbour True", "outside True", "left 0"], done.stderr
