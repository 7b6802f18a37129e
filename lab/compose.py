"""Everything that the containers of `docker compose up` read: certificates, configurations, what runs on a node.

`python -m lab.compose NODE…` is the one-shot service `pki`: it fills the volume of the masters (`/var/lib/cutaway`) and
one for each node (`/nodes/NAME`), which gets only what is its own, so that no node holds the cluster's CA key or
another node's certificate. Repeated, it changes nothing that is there.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import components, kubeconfig, nodes, process_spec, secret_keys
from lab.cluster import Cluster
from lab.components import Component
from lab.nodes import Node, node_name
from lab.pki import Pki
from machinery.component import yaml_text

HOME = Path("/var/lib/cutaway")
NODE_VOLUMES = Path("/nodes")
# The addresses of docker-compose.yml. They are fixed, so that certificates stay valid when the engine restarts.
BALANCER_IP = "10.198.0.2"
MASTER_IPS = ("10.198.0.3", "10.198.0.4")
NODE_IP_FIRST = 11
DATABASE_URL = f"postgresql://cutaway@postgres/cutaway?passfile={HOME}/pki/pgpass"
HOST_NAMES = ("balancer", "apiserver-1", "apiserver-2")


@dataclass(frozen=True, slots=True)
class ComposeCluster(Cluster):
    """The lab's cluster, with containers in place of this machine's processes."""

    @property
    def host_ip(self) -> str:
        return BALANCER_IP

    def node_ip(self, node: Node) -> str:
        return f"10.198.0.{NODE_IP_FIRST + node.index}"


def describe(names: list[str]) -> ComposeCluster:
    """The cluster with these nodes; `node1` has the first address."""
    known = {node_name(index): index for index in range(100)}
    return ComposeCluster(HOME, 0, tuple(Node(name, known[name]) for name in names), storage_url=DATABASE_URL)


def adapted(part: Component) -> Component:
    """A component as it runs in a container: apiservers have hosts of their own, so all have the usual ports."""
    config: dict[str, Any] = dict(part.config or {})
    if "apiserver" in config:
        config["apiserver"] = [f"{ip}:6444" for ip in MASTER_IPS]
    # A scheduler hears its own container only; the pods' conditions tell what explains.
    config.pop("schedulers", None)
    if part.spec.component == "kubelet":
        # On an engine that shares the host's cgroups a cluster of the host's own must not be met.
        config["cgroup_root"] = f"/cutaway-compose/{part.spec.node}"
    return replace(part, config=config or None)


def write_masters(cluster: ComposeCluster, pki: Pki) -> None:
    """The PKI, the masters' configurations, the administrator's kubeconfig, the balancer's file, the password."""
    fresh = not pki.ca_file.exists()
    pki.ensure(cluster.name)
    if fresh:
        # Not later: the apiservers of a cluster that runs would have to be given it one after the other.
        secret_keys.ensure(pki.directory / components.ENCRYPTION_KEYS)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    addresses = ["localhost", "127.0.0.1", cluster.addresses.kubernetes_ip, BALANCER_IP, *MASTER_IPS]
    pki.server("apiserver", "kube-apiserver", [*names, *addresses, *HOST_NAMES])
    _password(pki)
    for part in map(adapted, components.control_plane(cluster, pki)):
        _write_config(HOME, part)
    kubeconfig.write(
        HOME / "admin.kubeconfig", cluster=cluster.name, server=f"https://{BALANCER_IP}:6443",
        user="kubernetes-admin", identity=pki.client("admin", "kubernetes-admin", ["system:masters"]),
    )  # fmt: skip
    from lab import balancer

    backends = {f"apiserver-{index + 1}": f"{ip}:6443" for index, ip in enumerate(MASTER_IPS)}
    path = HOME / "config" / "balancer.cfg"
    path.write_text(balancer.configuration("0.0.0.0:6443", backends, str(pki.ca_file)))


def _password(pki: Pki) -> None:
    """One password in two forms: as PostgreSQL's initdb reads it, and as its clients do."""
    bare, passfile = pki.directory / "postgres-password", pki.directory / "pgpass"
    if not passfile.exists():
        word = secrets.token_urlsafe(24)
        for path, text in ((bare, word), (passfile, f"*:*:*:*:{word}\n")):
            path.touch(mode=0o600)
            path.write_text(text)


def write_node(cluster: ComposeCluster, node: Node, pki: Pki, volume: Path) -> None:
    """A node's volume: what its supervisor starts, the configurations, and the files that they name."""
    (volume / "pki").mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in ("components", "config", "logs", "run"):
        (volume / folder).mkdir(exist_ok=True)
    ingress = components.ingress(cluster, node, pki, "")
    for part in map(adapted, [*components.node(cluster, node, pki, ""), *([ingress] if ingress else [])]):
        _write_config(volume, part)
        process_spec.write_spec(volume / "components", part.spec)
        for file in _files(part.config or {}):
            shutil.copy2(file, volume / "pki" / file.name)
    inside = nodes.NodePaths(volume / "nodes" / node.name)
    nodes.prepare(inside)
    # The folders are made where the volume is now, the texts are for where the node will see it.
    there = cluster.node_paths(node)
    inside.containerd_config.write_text(nodes.containerd_config(there))
    process_spec.write_json(inside.root / "cni" / "template.json", nodes.cni_template(there))


def _files(config: dict[str, Any]) -> set[Path]:
    found = set()
    for value in config.values():
        if isinstance(value, dict):
            found |= _files(value)
        elif isinstance(value, str) and Path(value).parent == HOME / "pki":
            found.add(Path(value))
    return found


def _write_config(home: Path, part: Component) -> None:
    folder = home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    if part.config is not None:
        (folder / f"{part.spec.name}.yaml").write_text(yaml_text.dump(part.config))


def main() -> None:
    """Write everything for the nodes named on the command line."""
    cluster, pki = describe(sys.argv[1:]), Pki(HOME / "pki")
    write_masters(cluster, pki)
    for node in cluster.nodes:
        write_node(cluster, node, pki, NODE_VOLUMES / node.name)
    print(
        f"masters {', '.join(MASTER_IPS)} behind {BALANCER_IP}; nodes {', '.join(node.name for node in cluster.nodes)}"
    )


if __name__ == "__main__":
    main()
