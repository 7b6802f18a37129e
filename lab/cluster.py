"""A cluster's folder: what it is, where its parts lie, and its nodes.

`.cutaway/` in the checkout (or `--home`, or `$CUTAWAY_HOME`) holds everything: `cluster.json` (this module), `pki/`,
`components/` (what runs),
`config/` (a YAML file a process), `logs/`, `nodes/<name>/`, `state.db`, `admin.kubeconfig`.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import lab
from lab import network
from lab.errors import LabError
from lab.network import Addresses
from lab.nodes import Node, NodePaths, node_name
from lab.process_spec import write_json

# Ports of slot 9 still fit below the range from which the kernel takes ports for outgoing connections.
SLOT_MAX = 9
# Between the ports of one master's scheduler and those of the next one's; controller-managers likewise.
MASTER_PORT_STEP = 10
MASTERS_MAX = 3
# How long who listens on a port may take to show who they are.
ASK_SECONDS = 1.0
PROJECT_ROOT = Path(lab.__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was asked for. Changes are made by `save` of a changed copy, then `up` brings the machine in line."""

    home: Path
    slot: int
    nodes: tuple[Node, ...]
    hollow: bool = False
    # SQLAlchemy URL of the state; empty: SQLite in the folder, or a private PostgreSQL for several masters.
    storage_url: str = ""
    # How many apiservers, schedulers and controller-managers.
    masters: int = 1
    # Where other hosts reach the masters, once `cutaway token create` has been given; empty: nodes are only here.
    advertise: str = ""
    # Component name -> command that runs instead of ours.
    swaps: dict[str, list[str]] = field(default_factory=dict)

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.slot)

    @property
    def name(self) -> str:
        return "cutaway" if self.slot == 0 else f"cutaway-{self.slot}"

    @property
    def host_ip(self) -> str:
        """The address at which nodes reach the control plane."""
        return "127.0.0.1" if self.hollow else self.addresses.host_ip

    @property
    def pki(self) -> Path:
        return self.home / "pki"

    @property
    def components(self) -> Path:
        return self.home / "components"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.home / "admin.kubeconfig"

    def port(self, default: int) -> int:
        """A control-plane port of this cluster: upstream's own for the first cluster on a machine."""
        return default + 1000 * self.slot

    def replica(self, component: str, index: int) -> str:
        """Name of the process of a control-plane component on the master with this index (from 0)."""
        return component if index == 0 else f"{component}-{index + 1}"

    def rest_port(self, index: int) -> int:
        """REST port of a master's apiserver. The usual one is the balancer's where there are several."""
        return self.port(6443) if self.masters == 1 else self.port(6445) + 2 * index

    def grpc_port(self, index: int) -> int:
        """gRPC port of a master's apiserver."""
        return self.port(6444) + 2 * index

    @property
    def server(self) -> str:
        """The REST address, as clients on this machine use it."""
        return f"https://127.0.0.1:{self.port(6443)}"

    def node_paths(self, node: Node) -> NodePaths:
        return NodePaths(self.home / "nodes" / node.name)

    def node_ip(self, node: Node) -> str:
        return "127.0.0.1" if self.hollow else self.addresses.node_ip(node.index)

    def node(self, name: str) -> Node:
        """The node of this name. Raises LabError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"no node {name!r}", f"there are {', '.join(n.name for n in self.nodes) or 'none'}")

    def with_nodes(self, count: int) -> Cluster:
        """A copy with `count` nodes: the lowest free indices are filled, the highest nodes go."""
        nodes = list(self.nodes)
        while len(nodes) < count:
            index = next(i for i in range(count) if i not in {n.index for n in nodes})
            nodes.append(Node(node_name(index), index))
        return replace(self, nodes=tuple(sorted(nodes[:count], key=lambda n: n.index)))

    def save(self) -> None:
        """Write `cluster.json`."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        value = asdict(self) | {"home": str(self.home), "nodes": [asdict(node) for node in self.nodes]}
        write_json(self.home / "cluster.json", value)


def default_home() -> Path:
    """`$CUTAWAY_HOME`, or `.cutaway` in the checkout."""
    return Path(os.environ.get("CUTAWAY_HOME") or PROJECT_ROOT / ".cutaway").resolve()


def load(home: Path) -> Cluster | None:
    """The cluster in a folder; None if there is none. Raises LabError if its file is damaged."""
    path = home / "cluster.json"
    try:
        value = json.loads(path.read_text())
        value["nodes"] = tuple(Node(**node) for node in value["nodes"])
        return Cluster(**(value | {"home": Path(value["home"])}))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise LabError(
            f"{path} is damaged ({error})", "`cutaway down` removes what is left; then start again"
        ) from error


def require(home: Path) -> Cluster:
    """The cluster in a folder. Raises LabError if there is none."""
    cluster = load(home)
    if cluster is None:
        raise LabError(f"there is no cluster in {home}", "`cutaway up` makes one")
    return cluster


def create(home: Path, *, nodes: int, hollow: bool, masters: int = 1) -> Cluster:
    """A new cluster (not saved yet) on `$CUTAWAY_SLOT` or the first slot that no other cluster has.

    A slot whose addresses this host already reaches elsewhere is passed over. Raises LabError if there is no other, or
    if a program that is no cluster of ours listens on a port that it needs.
    """
    chosen = os.environ.get("CUTAWAY_SLOT")
    slot = int(chosen) if chosen else 0
    while True:
        cluster = Cluster(home, slot, (), hollow, masters=masters).with_nodes(nodes)
        another_cluster = network.link_exists(Addresses(slot).bridge)
        busy = None if another_cluster else first_busy_port(cluster)
        if not another_cluster and busy is None:
            overlap = "" if hollow else network.clash_here(cluster.addresses)
            if not overlap:
                return cluster
            if chosen or slot == SLOT_MAX:
                raise LabError(overlap, "choose other addresses with CUTAWAY_SLOT=1 (up to 9)")
            slot += 1
            continue
        port, owner = busy or (cluster.port(6443), "another cluster")
        if chosen or slot == SLOT_MAX or not (another_cluster or _is_cluster(owner) or _has_our_certificate(port)):
            raise LabError(
                f"port {port} is taken by {owner}", "end that program, or choose other ports with CUTAWAY_SLOT=1"
            )
        slot += 1


def control_plane_ports(cluster: Cluster) -> list[int]:
    """Every port that the control plane listens on."""
    ports = [cluster.port(6443)]
    for index in range(cluster.masters):
        ports += {cluster.rest_port(index), cluster.grpc_port(index)} - {ports[0]}
        ports += [cluster.port(p) + MASTER_PORT_STEP * index for p in (10259, 10359, 10257, 10357)]
    return ports


def first_busy_port(cluster: Cluster) -> tuple[int, str] | None:
    """A control-plane port that somebody else listens on, and who; None if all are free."""
    for port in control_plane_ports(cluster):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return port, _listener(port)
    return None


def _is_cluster(owner: str) -> bool:
    """Whether a listener, as `_listener` tells of it, was started with a file of some cluster's folder (an apiserver, a
    balancer)."""
    pid = owner.partition("pid=")[2].partition(",")[0]
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return "python" in owner
    folders = (parent for word in words if word.startswith("/") for parent in Path(word).parents)
    return any((folder / "cluster.json").exists() for folder in folders)


def _has_our_certificate(port: int) -> bool:
    """Whether a server of some cluster's listens there: also one of another user, whose processes we may not see."""
    try:
        certificate = ssl.get_server_certificate(("127.0.0.1", port), timeout=ASK_SECONDS)
    except (OSError, ValueError):
        return False
    return b"cutaway-ca-" in ssl.PEM_cert_to_DER_cert(certificate)


def _listener(port: int) -> str:
    try:
        listing = network.run("ss", "-Hltnp", f"sport = :{port}", check=False)
    except LabError:
        return "another program"
    _, _, users = listing.partition("users:((")
    return users.partition(")")[0].replace('"', "") or "another program"
