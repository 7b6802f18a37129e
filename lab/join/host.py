"""A host that joined: its folder, its certificates, its processes.

The folder is like a cluster's (`components/ config/ logs/ nodes/ pki/ run/`), with `host.json` in place of
`cluster.json` and, in `pki/`, the CA's certificate without its key and one PEM file a certificate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import components
from lab.cluster import PROJECT_ROOT, Cluster
from lab.components import Component
from lab.errors import LabError
from lab.join.signing import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, Wanted
from lab.nodes import Node
from lab.pki import Identity, Pki
from lab.process_spec import ProcessSpec, write_json

FILE = "host.json"
SERVING = "serving"
NODE_GROUP = "system:nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedHost(Cluster):
    """The cluster as one of its hosts knows it: one node, the masters elsewhere."""

    # "host:port" of the masters' REST API and of each master's gRPC.
    server: str
    apiservers: tuple[str, ...]
    ip: str
    # "systemd", or "own" for the project's supervisor.
    supervisor: str = "own"
    cluster_name: str = "cutaway"

    @property
    def me(self) -> Node:
        return self.nodes[0]

    @property
    def name(self) -> str:
        return self.cluster_name

    @property
    def host_ip(self) -> str:
        return self.server.rpartition(":")[0]

    def node_ip(self, node: Node) -> str:
        return self.ip

    def save(self) -> None:
        """Write `host.json`."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = ("slot", "server", "apiservers", "ip", "supervisor", "cluster_name")
        write_json(self.home / FILE, {"node": self.me.name, **{name: getattr(self, name) for name in known}})


def load(home: Path) -> JoinedHost | None:
    """The host in a folder; None if it joined nothing. Raises LabError if its file is damaged."""
    try:
        value = json.loads((home / FILE).read_text())
        node = value.pop("node")
        value["apiservers"] = tuple(value["apiservers"])
        return JoinedHost(home=home, nodes=(Node(node, 0),), **value)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise LabError(f"{home / FILE} is damaged ({error})", f"remove {home} and join again") from error


class HeldPki(Pki):
    """Certificates that others have signed: each is there, or about to be, in a PEM file with its key."""

    def client(self, name: str, user: str, groups: Sequence[str] = (), *, authority: str = "ca") -> Identity:
        """Its file: `kubelet-NODE` and so on; nothing is made."""
        return self.file(name.partition("-")[0] if name.startswith("kubelet-") else name)

    def server(self, name: str, common_name: str, hosts: Iterable[str], groups: Sequence[str] = ()) -> Identity:
        """The node's one serving certificate, whoever serves."""
        return self.file(SERVING)

    def file(self, name: str) -> Identity:
        """Certificate and key in one file."""
        path = self.directory / f"{name}.pem"
        return Identity(self.ca_file, path, path)


def wanted(host: JoinedHost) -> dict[str, Wanted]:
    """Every certificate of the host by the name of its file, the kubelet's first."""
    user = f"system:node:{host.me.name}"
    return {
        "kubelet": Wanted(user, KUBELET_CLIENT, (NODE_GROUP,)),
        "kube-proxy": Wanted("system:kube-proxy", CLIENT),
        "dns": Wanted("system:kube-dns", CLIENT),
        SERVING: Wanted(user, KUBELET_SERVING, (NODE_GROUP,), (host.me.name, host.ip)),
    }


def parts(host: JoinedHost) -> list[Component]:
    """What runs on the host, in the order in which it starts."""
    pki = HeldPki(host.pki)
    node = [_adapted(host, part) for part in components.node(host, host.me, pki, "")]
    return [*node, _certificates(host)]


def _adapted(host: JoinedHost, part: Component) -> Component:
    config: dict[str, Any] = dict(part.config or {})
    if "apiserver" in config:
        config["apiserver"] = list(host.apiservers)
    return replace(part, config=config or None)


def _certificates(host: JoinedHost) -> Component:
    name = f"certificates-{host.me.name}"
    return Component(
        ProcessSpec(
            name=name,
            component="certificates",
            argv=[sys.executable, "-m", "lab.join.certificates", str(host.home)],
            log=str(host.home / "logs" / f"{name}.log"),
            node=host.me.name,
            environment=components.ENVIRONMENT | {"PYTHONPATH": str(PROJECT_ROOT)},
            address=str(host.pki),
        )
    )
