"""A node's folder and what containerd and CNI need in it.

`<cluster>/nodes/<name>/`: `containerd/{config.toml,root,state}`, `cni/{net.d,data}`, `run/` (sockets), `kubelet/`,
`cri/`, `ingress/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.network import Addresses
from lab.process_spec import write_json

CNI_PLUGIN_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin")
# Plugins of containerd that a node does not use: they cost start-up time and memory.
CONTAINERD_UNUSED = (
    "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the lab. `index` gives its address and stays its own for as long as the node exists."""

    name: str
    index: int


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Where everything of a node lies."""

    root: Path

    @property
    def containerd_config(self) -> Path:
        return self.root / "containerd" / "config.toml"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "run" / "containerd.sock"

    @property
    def cri_socket(self) -> Path:
        return self.root / "run" / "cri.sock"

    @property
    def cni_config_directory(self) -> Path:
        return self.root / "cni" / "net.d"

    @property
    def cni_data_directory(self) -> Path:
        return self.root / "cni" / "data"

    @property
    def cri_state(self) -> Path:
        return self.root / "cri"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def pod_logs(self) -> Path:
        return self.root / "pods"

    @property
    def ingress(self) -> Path:
        return self.root / "ingress"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"


def cni_plugin_directory() -> Path | None:
    """Where the distribution keeps the CNI plugins; None if they are not installed."""
    return next((Path(d) for d in CNI_PLUGIN_DIRECTORIES if (Path(d) / "bridge").exists()), None)


def containerd_config(paths: NodePaths) -> str:
    """containerd's configuration: everything of this node below its own folder."""
    unused = ", ".join(json.dumps(name) for name in CONTAINERD_UNUSED)
    return f"""version = 2
root = "{paths.root}/containerd/root"
state = "{paths.root}/containerd/state"
disabled_plugins = [{unused}]

[grpc]
  address = "{paths.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{paths.root}/containerd/opt"
"""


def cni_template(paths: NodePaths) -> dict[str, object]:
    """The pod network's CNI configuration; the shim puts the node's pod range in place of `{{.PodCIDR}}` once it is
    known."""
    return {
        "cniVersion": "1.0.0",
        "name": "cutaway",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "{{.PodCIDR}}"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(paths.cni_data_directory),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


def prepare(paths: NodePaths) -> None:
    """Make a node's folders and the configuration of what is not ours in them."""
    for directory in (
        paths.containerd_config.parent, paths.root / "run", paths.cni_config_directory, paths.cni_data_directory,
        paths.kubelet, paths.cri_state, paths.manifests, paths.pod_logs,
    ):  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
    paths.containerd_config.write_text(containerd_config(paths))
    write_json(paths.root / "cni" / "template.json", cni_template(paths))


def node_name(index: int) -> str:
    """node1 is the first one."""
    return f"node{index + 1}"


def address_of(addresses: Addresses, node: Node, *, hollow: bool) -> str:
    """The node's own address."""
    return "127.0.0.1" if hollow else addresses.node_ip(node.index)
