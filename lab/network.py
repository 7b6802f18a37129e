"""The machine's side of the network: one bridge a cluster, one network namespace a node.

```
 host ── cutaway0 (10.197.<slot>.1/24) ──┬── veth ── node1: eth0 10.197.<slot>.11, pods 10.244.0.0/24
   │                                     └── veth ── node2: eth0 10.197.<slot>.12, pods 10.244.1.0/24
   └── the way out, masqueraded by the nft table `cutaway-<slot>`
```

The namespaces are pinned in a directory of our own, because the first `ip netns add` on a host mounts /run/netns over
itself and from then on namespaces that another runtime keeps there can't be removed. Every function here can be
repeated: it makes what is missing.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError

# Where node namespaces are pinned. Below /run, because a pin must not outlive the machine.
PIN_DIRECTORY = Path("/run/cutaway")
FIRST_NODE_HOST = 11


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every range of one cluster. `slot` keeps clusters on one machine apart; slot 0 has the ranges that people
    know."""

    slot: int

    @property
    def bridge(self) -> str:
        return f"cutaway{self.slot}"

    @property
    def node_network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"10.197.{self.slot}.0/24")

    @property
    def host_ip(self) -> str:
        return str(self.node_network[1])

    @property
    def pod_cidr(self) -> str:
        return f"10.{244 - self.slot}.0.0/16"

    @property
    def service_cidr(self) -> str:
        return f"10.{96 + self.slot}.0.0/16"

    @property
    def dns_ip(self) -> str:
        return f"10.{96 + self.slot}.0.10"

    @property
    def kubernetes_ip(self) -> str:
        return f"10.{96 + self.slot}.0.1"

    def node_ip(self, index: int) -> str:
        """Address of the node with this index (from 0)."""
        return str(self.node_network[FIRST_NODE_HOST + index])


def run(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a program of the system; its output. Raises LabError with what it said."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed", "`make up` installs what is missing") from error
    if check and done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _ip(*commands: str, namespace: Path | None = None) -> None:
    """Commands of iproute2 in this order by one process (inside a network namespace); the first that fails is the
    last. Raises LabError."""
    inside = ["nsenter", f"--net={namespace}", "--"] if namespace else []
    run(*inside, "ip", "-batch", "-", stdin="\n".join(commands))


def link_exists(name: str, namespace: Path | None = None) -> bool:
    """Whether there is a link of this name (in the namespace)."""
    if shutil.which("ip") is None:
        return False  # Without iproute2 no cluster with networks can be here.
    inside = ["nsenter", f"--net={namespace}", "--"] if namespace else []
    return subprocess.run([*inside, "ip", "link", "show", name], capture_output=True, timeout=20).returncode == 0


def pin_path(slot: int, node: str) -> Path:
    """The file that keeps a node's network namespace."""
    return PIN_DIRECTORY / str(slot) / "netns" / node


def clash(addresses: Addresses, routes: Iterable[Mapping[str, Any]]) -> str:
    """How a range of this slot is in the way of a network that this host already reaches; empty if none is. Pure.

    `routes` as `ip -j -4 route` tells them. A route to a larger network goes on working for all the rest of it.
    """
    ranges = {"nodes": addresses.node_network} | {
        name: ipaddress.IPv4Network(cidr)
        for name, cidr in (("pods", addresses.pod_cidr), ("Services", addresses.service_cidr))
    }
    for route in routes:
        if route["dst"] == "default":
            continue
        reached = ipaddress.IPv4Network(route["dst"], strict=False)
        for name, own in ranges.items():
            if reached.subnet_of(own):
                return (
                    f"{own} (for {name}) overlaps {reached}, which this host reaches by {route.get('dev', 'a route')}"
                )
    return ""


def clash_here(addresses: Addresses) -> str:
    """`clash` with this host's routes."""
    return clash(addresses, json.loads(run("ip", "-j", "-4", "route") or "[]"))


def ensure_bridge(addresses: Addresses) -> None:
    """The cluster's bridge on this host, with forwarding, the way out, and a hole in a firewall that drops what is
    forwarded."""
    if not link_exists(addresses.bridge):
        _ip(
            f"link add {addresses.bridge} type bridge",
            f"address add {addresses.host_ip}/24 dev {addresses.bridge}",
            f"link set {addresses.bridge} up",
        )
    _turn_forwarding_on(addresses.slot)
    run("nft", "-f", "-", stdin=host_ruleset(addresses))
    _accept_forwarding(addresses.bridge)


IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def _turn_forwarding_on(slot: int) -> None:
    if IP_FORWARD.read_text().strip() == "0":
        # Remembered, so that `cutaway down` leaves the machine as it was.
        marker = PIN_DIRECTORY / str(slot) / "forwarding-was-off"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        IP_FORWARD.write_text("1")


def host_ruleset(addresses: Addresses) -> str:
    """The host's nft table: what leaves the cluster's networks for elsewhere takes this host's address."""
    table = f"cutaway-{addresses.slot}"
    inside = f"{{ {addresses.node_network}, {addresses.pod_cidr}, {addresses.service_cidr} }}"
    return f"""
table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {inside} ip daddr != {inside} oifname != "{addresses.bridge}" masquerade
  }}
}}
"""


def _forward_rules(bridge: str) -> list[list[str]]:
    comment = ["-m", "comment", "--comment", "cutaway"]
    return [["-i", bridge, *comment, "-j", "ACCEPT"], ["-o", bridge, *comment, "-j", "ACCEPT"]]


def _accept_forwarding(bridge: str) -> None:
    """A Docker engine sets the policy of FORWARD to DROP, which also catches bridged packets: accept ours before it.

    Also if it is only installed, because it may start after the cluster did.
    """
    if shutil.which("iptables") is None:
        return
    there = subprocess.run(["iptables", "-S", "FORWARD"], capture_output=True, text=True, timeout=20).stdout
    if not re.search(r"-P FORWARD DROP|-j (DROP|REJECT)", there) and shutil.which("dockerd") is None:
        return
    for rule in _forward_rules(bridge):
        if subprocess.run(["iptables", "-C", "FORWARD", *rule], capture_output=True, timeout=20).returncode != 0:
            run("iptables", "-I", "FORWARD", *rule)


def says_nothing(table: Mapping[str, Any]) -> bool:
    """Whether a table, as `nft -j list table` tells it, lets everything through, as if it were not there. Pure."""
    entries = table["nftables"]
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    other = [entry for entry in entries if entry.keys().isdisjoint({"metainfo", "table", "chain"})]
    return not other and all(chain.get("policy") == "accept" for chain in chains)


def _remove_empty_filter() -> None:
    """The table that `iptables` makes for its first rule stays after its last one: take it away too."""
    listing = run("nft", "-j", "list", "table", "ip", "filter", check=False)
    if listing and says_nothing(json.loads(listing)):
        run("nft", "delete", "table", "ip", "filter", check=False)


def remove_bridge(addresses: Addresses) -> None:
    """Undo `ensure_bridge`."""
    if link_exists(addresses.bridge):
        run("ip", "link", "delete", addresses.bridge)
    run("nft", "delete", "table", "ip", f"cutaway-{addresses.slot}", check=False)
    for rule in _forward_rules(addresses.bridge) if shutil.which("iptables") else []:
        subprocess.run(["iptables", "-D", "FORWARD", *rule], capture_output=True, timeout=20)
    _remove_empty_filter()
    slot_directory = PIN_DIRECTORY / str(addresses.slot)
    if (slot_directory / "forwarding-was-off").exists():
        IP_FORWARD.write_text("0")
    shutil.rmtree(slot_directory, ignore_errors=True)
    if PIN_DIRECTORY.exists() and not any(PIN_DIRECTORY.iterdir()):
        PIN_DIRECTORY.rmdir()


def ensure_node(addresses: Addresses, node: str, index: int) -> Path:
    """A node's network namespace on the bridge; the file that pins it."""
    pin = pin_path(addresses.slot, node)
    if not _is_pinned(pin):
        pin.parent.mkdir(parents=True, exist_ok=True)
        pin.touch()
        run("unshare", f"--net={pin}", "true")
    outside, inside = f"ctw{addresses.slot}-{index}", "eth0"
    if not link_exists(inside, pin):
        if link_exists(outside):
            run("ip", "link", "delete", outside, check=False)
        _ip(
            f"link add {outside} type veth peer name {outside}p",
            f"link set {outside} master {addresses.bridge} up",
            # Moved by the file that pins the namespace: there is no process in it yet.
            f"link set {outside}p netns {pin}",
        )
        _ip(
            f"link set {outside}p name {inside}",
            f"address add {addresses.node_ip(index)}/24 dev {inside}",
            f"link set {inside} up",
            "link set lo up",
            f"route add default via {addresses.host_ip}",
            # Pods' addresses that no node has end here, instead of going round between this node and the host.
            f"route add unreachable {addresses.pod_cidr} metric 10000",
            namespace=pin,
        )
        run("nsenter", f"--net={pin}", "--", "sh", "-c", _NODE_SYSCTLS)
    return pin


def route_host_through(addresses: Addresses, index: int) -> None:
    """Let this host reach Services and pods by way of a node (the apiserver calls webhooks, people try addresses)."""
    way = addresses.node_ip(index)
    _ip(*(f"route replace {network} via {way}" for network in (addresses.service_cidr, addresses.pod_cidr)))


# Pod traffic is forwarded, and packets between pods on one bridge must pass the rules that turn a Service's answers
# back.
_NODE_SYSCTLS = """
echo 1 > /proc/sys/net/ipv4/ip_forward
[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
"""


def _is_pinned(pin: Path) -> bool:
    return pin.exists() and str(pin) in Path("/proc/self/mounts").read_text()


def remove_node(addresses: Addresses, node: str, index: int) -> None:
    """Undo `ensure_node`."""
    run("ip", "link", "delete", f"ctw{addresses.slot}-{index}", check=False)
    pin = pin_path(addresses.slot, node)
    if pin.exists():
        run("umount", str(pin), check=False)
        pin.unlink(missing_ok=True)


def cut_node(addresses: Addresses, index: int, *, connected: bool) -> None:
    """Pull the node's cable, or plug it in again."""
    run("ip", "link", "set", f"ctw{addresses.slot}-{index}", "up" if connected else "down")
