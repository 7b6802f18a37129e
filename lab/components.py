"""Which processes a cluster consists of, and the configuration of each: a pure function of the cluster.

`control_plane(cluster)` and `node(cluster, node)` return the specs in the order in which they start; `configs` are the
YAML files that they are given. Nothing is written or started here.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, field
from typing import Any

from lab.cluster import MASTER_PORT_STEP, PROJECT_ROOT, Cluster
from lab.nodes import CNI_PLUGIN_DIRECTORIES, Node
from lab.pki import Identity, Pki
from lab.process_spec import ProcessSpec

# gRPC's fork handlers wait for its threads before every program that a component starts; ours only ever fork to exec.
# Unbuffered output: a log must hold the last line that a process wrote before it died.
# One arena: glibc's arenas, one a thread, cost each Python process tens of megabytes for nothing.
ENVIRONMENT = {"GRPC_ENABLE_FORK_SUPPORT": "0", "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}

_PLACE = re.compile(r"\{([a-z0-9_.]+)\}")

# In `pki/`: what Secrets are sealed with; see secret_keys.py.
ENCRYPTION_KEYS = "encryption.keys"

# Where Debian and others install HAProxy; not on every user's PATH.
PROXY_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


@dataclass(frozen=True, slots=True)
class Component:
    """One process and the configuration file that it reads (None: it has none of ours)."""

    spec: ProcessSpec
    config: dict[str, Any] | None = None
    # Who it is towards the apiserver; written as a kubeconfig too, for a program of somebody else in its place.
    identity: Identity | None = None
    # Other files of its configuration: name below `config/` -> content.
    files: dict[str, str] = field(default_factory=dict)


def control_plane(cluster: Cluster, pki: Pki) -> list[Component]:
    """apiserver, scheduler, controller-manager: one of each a master."""
    masters = range(cluster.masters)
    return [
        *(_apiserver(cluster, pki, index) for index in masters),
        *(_scheduler(cluster, pki, index) for index in masters),
        *(_controller_manager(cluster, pki, index) for index in masters),
    ]


def storage_url(cluster: Cluster) -> str:
    """Where the apiservers keep the state."""
    if cluster.storage_url:
        return cluster.storage_url
    if cluster.masters == 1:
        return f"sqlite:///{cluster.home / 'state.db'}"
    from lab import postgres  # its driver is needed only here

    return postgres.url(cluster)


def tls(identity: Identity) -> dict[str, str]:
    """An identity as a component's configuration names its files."""
    return {
        "ca_file": str(identity.ca_file),
        "cert_file": str(identity.cert_file),
        "key_file": str(identity.key_file),
    }


def _hosts(cluster: Cluster, *names: str) -> list[str]:
    return ["localhost", "127.0.0.1", cluster.host_ip, *names]


def _ours(
    cluster: Cluster,
    name: str,
    component: str,
    module: str,
    config: dict[str, Any],
    *,
    node: str = "",
    network_namespace: str = "",
    identity: Identity | None = None,
    health: str,
    address: str,
    stop_seconds: float = 10.0,
) -> Component:
    path = cluster.home / "config" / f"{name}.yaml"
    kubeconfig = path.with_suffix(".kubeconfig")
    environment = ENVIRONMENT | {"PYTHONPATH": str(PROJECT_ROOT), "CUTAWAY_CONFIG": str(path)}
    if identity is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    argv = [sys.executable, "-m", module, "--config", str(path)]
    swapped = cluster.swaps.get(name) or cluster.swaps.get(component)
    if swapped:
        files = {"config": str(path), "kubeconfig": str(kubeconfig), "pki": str(cluster.pki)}
        argv = filled(swapped, {**flattened(config), **files})
        # Another program answers no health question of ours: that it runs is what can be said of it.
        health = ""
    spec = ProcessSpec(
        name=name,
        component=component,
        argv=argv,
        log=str(cluster.home / "logs" / f"{name}.log"),
        node=node,
        network_namespace=network_namespace,
        environment=environment,
        health=health,
        address=address,
        stop_seconds=stop_seconds,
    )
    # The shim can run without the rest of Cutaway, so its configuration is its own.
    common = {} if component == "cri" else {"name": name, "log_format": "json"}
    return Component(spec, {**common, **config}, identity)


def flattened(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Every value of a configuration by its path: "node_ip", "tls.cert_file". Lists are joined by commas."""
    out: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            out |= flattened(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return out


def filled(command: list[str], values: dict[str, str]) -> list[str]:
    """A command with each `{name}` that is known replaced; other braces are the command's own."""
    return [_PLACE.sub(lambda found: values.get(found[1], found[0]), word) for word in command]


def _apiserver(cluster: Cluster, pki: Pki, index: int) -> Component:
    rest, grpc = cluster.rest_port(index), cluster.grpc_port(index)
    names = [cluster.addresses.kubernetes_ip, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names += ["kubernetes.default.svc.cluster.local", *([cluster.advertise] if cluster.advertise else [])]
    serving = pki.server("apiserver", "kube-apiserver", _hosts(cluster, *names))
    to_kubelets = pki.client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
    to_apis = pki.client("front-proxy-client", "front-proxy-client", authority="front-proxy-ca")
    everywhere = "127.0.0.1" if cluster.hollow else "0.0.0.0"
    config = {
        "grpc_address": f"{everywhere}:{grpc}",
        "rest_address": f"{everywhere}:{rest}",
        "advertise_address": cluster.advertise or cluster.host_ip,
        # The balancer's, where there is one: pods need not know which apiserver answers.
        "advertise_port": cluster.port(6443),
        "storage_url": storage_url(cluster),
        "service_cidr": cluster.addresses.service_cidr,
        "service_account_key_file": str(pki.directory / "sa.key"),
        "service_account_issuer": "https://kubernetes.default.svc.cluster.local",
        "serving": tls(serving),
        "kubelet_client": tls(to_kubelets),
        # Aggregated API servers believe what this client says of users; the CA is what they know it by.
        "front_proxy_client": {**tls(to_apis), "ca_file": str(pki.directory / "front-proxy-ca.crt")},
    }
    if cluster.masters > 1:
        # The balancer looks once a second, and twice more before it believes; what it sends until then is served.
        config |= {"shutdown_delay_seconds": 2.5, "drain_seconds": 8.0}
    keys = pki.directory / ENCRYPTION_KEYS
    if keys.exists():
        config["encryption_key_file"] = str(keys)
    return _ours(
        cluster, cluster.replica("apiserver", index), "apiserver", "services.apiserver", config,
        health=f"https://127.0.0.1:{rest}/readyz", address=f"127.0.0.1:{rest}",
    )  # fmt: skip


def client_of_apiserver(cluster: Cluster, identity: Identity) -> dict[str, Any]:
    """Where the apiserver answers, and who asks."""
    addresses = [f"{cluster.host_ip}:{cluster.grpc_port(index)}" for index in range(cluster.masters)]
    return {"apiserver": addresses, "tls": tls(identity)}


def _scheduler(cluster: Cluster, pki: Pki, index: int) -> Component:
    grpc, web = (cluster.port(port) + MASTER_PORT_STEP * index for port in (10359, 10259))
    identity = pki.client("scheduler", "system:kube-scheduler")
    config = {
        **client_of_apiserver(cluster, identity),
        "serving": tls(pki.server("scheduler", "system:kube-scheduler", _hosts(cluster))),
        "grpc_address": f"127.0.0.1:{grpc}",
        "http_address": f"127.0.0.1:{web}",
    }
    return _ours(
        cluster, cluster.replica("scheduler", index), "scheduler", "services.scheduler", config,
        identity=identity, health=f"https://127.0.0.1:{web}/readyz", address=f"127.0.0.1:{grpc}",
    )  # fmt: skip


def _controller_manager(cluster: Cluster, pki: Pki, index: int) -> Component:
    grpc, web = (cluster.port(port) + MASTER_PORT_STEP * index for port in (10357, 10257))
    identity = pki.client("controller-manager", "system:kube-controller-manager")
    config = {
        **client_of_apiserver(cluster, identity),
        "serving": tls(pki.server("controller-manager", "system:kube-controller-manager", _hosts(cluster))),
        "grpc_address": f"127.0.0.1:{grpc}",
        "http_address": f"127.0.0.1:{web}",
        "rest": [f"https://{cluster.host_ip}:{cluster.rest_port(each)}" for each in range(cluster.masters)],
        "root_ca_file": str(pki.ca_file),
        "signing_ca_file": str(pki.ca_file),
        "signing_key_file": str(pki.directory / "ca.key"),
        # Asked by what explains.
        "schedulers": [f"127.0.0.1:{cluster.port(10359) + MASTER_PORT_STEP * each}" for each in range(cluster.masters)],
        "cluster_cidrs": [cluster.addresses.pod_cidr],
        "local_path": str(cluster.home / "local-path"),
        # The end of the nodes' network; the nodes' own addresses begin at .11.
        "load_balancer_addresses": [f"{cluster.addresses.node_network[200]}-{cluster.addresses.node_network[250]}"],
    }
    return _ours(
        cluster, cluster.replica("controller-manager", index), "controller-manager", "services.controller_manager",
        config,
        identity=identity, health=f"https://127.0.0.1:{web}/readyz", address=f"127.0.0.1:{grpc}",
    )  # fmt: skip


def node(cluster: Cluster, node: Node, pki: Pki, network_namespace: str) -> list[Component]:
    """containerd, shim, kubelet, proxy and DNS of one node."""
    return [
        _containerd(cluster, node, network_namespace),
        _cri(cluster, node, network_namespace),
        _kubelet(cluster, node, pki, network_namespace),
        _kube_proxy(cluster, node, pki, network_namespace),
        _dns(cluster, node, pki, network_namespace),
    ]


def _containerd(cluster: Cluster, node: Node, network_namespace: str) -> Component:
    paths = cluster.node_paths(node)
    name = f"containerd-{node.name}"
    spec = ProcessSpec(
        name=name,
        component="containerd",
        argv=["containerd", "--config", str(paths.containerd_config), "--log-level", "warn"],
        log=str(cluster.home / "logs" / f"{name}.log"),
        node=node.name,
        network_namespace=network_namespace,
        health=f"unix://{paths.containerd_socket}",
        address=str(paths.containerd_socket),
    )
    return Component(spec)


def _cri(cluster: Cluster, node: Node, network_namespace: str) -> Component:
    paths = cluster.node_paths(node)
    config = {
        "socket": str(paths.cri_socket),
        "containerd": str(paths.containerd_socket),
        "root": str(paths.cri_state / "root"),
        "state": str(paths.cri_state / "state"),
        # runc's own records; by default every containerd on a machine would share them.
        "runc_root": str(paths.root / "run" / "runc"),
        "cni": {
            "conf_dir": str(paths.cni_config_directory),
            "bin_dirs": list(CNI_PLUGIN_DIRECTORIES),
            "template": str(paths.root / "cni" / "template.json"),
        },
    }
    return _ours(
        cluster, f"cri-{node.name}", "cri", "cri", config,
        node=node.name, network_namespace=network_namespace,
        health=f"cri://{paths.cri_socket}", address=str(paths.cri_socket),
    )  # fmt: skip


def _kubelet(cluster: Cluster, node: Node, pki: Pki, network_namespace: str) -> Component:
    paths, ip = cluster.node_paths(node), cluster.node_ip(node)
    user = f"system:node:{node.name}"
    identity = pki.client(f"kubelet-{node.name}", user, ["system:nodes"])
    config = {
        **client_of_apiserver(cluster, identity),
        "serving": tls(
            pki.server(f"kubelet-{node.name}", user, ["localhost", "127.0.0.1", node.name, ip], ["system:nodes"])
        ),
        "grpc_address": f"{ip}:10350",
        "http_address": f"{ip}:10250",
        "node_name": node.name,
        "node_ip": ip,
        "runtime_endpoint": f"unix://{paths.cri_socket}",
        "root_dir": str(paths.kubelet),
        "manifests_dir": str(paths.manifests),
        "pod_logs_dir": str(paths.pod_logs),
        # The components of this machine's nodes log side by side.
        "system_logs_dir": str(cluster.home / "logs"),
        "cluster_dns": [cluster.addresses.dns_ip],
        "cluster_domain": "cluster.local",
        "cgroup_root": f"/cutaway/{cluster.slot}/{node.name}",
        # Nodes that share this machine's users must not share those of their pods: 128 ranges each.
        "user_ids_first": 65536 * (1 + 128 * (node.index % 32 + 32 * cluster.slot)),
    }
    return _ours(
        cluster, f"kubelet-{node.name}", "kubelet", "services.kubelet", config,
        node=node.name, network_namespace=network_namespace,
        identity=identity, health=f"https://{ip}:10250/livez", address=f"{ip}:10250",
    )  # fmt: skip


def _kube_proxy(cluster: Cluster, node: Node, pki: Pki, network_namespace: str) -> Component:
    ip = cluster.node_ip(node)
    identity = pki.client("kube-proxy", "system:kube-proxy")
    config = {
        **client_of_apiserver(cluster, identity),
        "serving": tls(pki.server(f"kube-proxy-{node.name}", "system:kube-proxy", ["localhost", "127.0.0.1", ip])),
        "grpc_address": f"{ip}:10349",
        "http_address": f"{ip}:10249",
        # The ports that balancers and tests know from upstream.
        "healthz_addresses": ["0.0.0.0:10256", "127.0.0.1:10249"],
        "node_name": node.name,
        "cluster_cidr": cluster.addresses.pod_cidr,
    }
    return _ours(
        cluster, f"kube-proxy-{node.name}", "kube-proxy", "services.kube_proxy", config,
        node=node.name, network_namespace=network_namespace,
        identity=identity, health=f"https://{ip}:10249/readyz", address=f"{ip}:10349",
    )  # fmt: skip


def _dns(cluster: Cluster, node: Node, pki: Pki, network_namespace: str) -> Component:
    ip = cluster.node_ip(node)
    identity = pki.client("dns", "system:kube-dns")
    config = {
        **client_of_apiserver(cluster, identity),
        "serving": tls(pki.server(f"dns-{node.name}", "system:kube-dns", ["localhost", "127.0.0.1", ip])),
        "grpc_address": f"{ip}:10353",
        "http_address": f"{ip}:9153",
        "node_name": node.name,
        "address": ip,
        "domain": "cluster.local",
    }
    return _ours(
        cluster, f"dns-{node.name}", "dns", "services.dns", config,
        node=node.name, network_namespace=network_namespace,
        identity=identity, health=f"https://{ip}:9153/readyz", address=f"{ip}:53",
    )  # fmt: skip


def ingress(cluster: Cluster, node: Node, pki: Pki, network_namespace: str) -> Component | None:
    """The ingress controller of one node; None where HAProxy, which it drives, is not installed.

    It starts when the nodes are Ready: nothing waits for it, and a node should not wait for its interpreter.
    """
    if shutil.which("haproxy", path=PROXY_PATH) is None:
        return None
    paths, ip = cluster.node_paths(node), cluster.node_ip(node)
    identity = pki.client("ingress", "system:ingress")
    config = {
        **client_of_apiserver(cluster, identity),
        "serving": tls(pki.server(f"ingress-{node.name}", "system:ingress", ["localhost", "127.0.0.1", ip])),
        "grpc_address": f"{ip}:10354",
        "http_address": f"{ip}:10254",
        "proxy_metrics_address": f"{ip}:10255",
        "node_name": node.name,
        "address": ip,
        "run_dir": str(paths.ingress),
    }
    return _ours(
        cluster, f"ingress-{node.name}", "ingress", "services.ingress", config,
        node=node.name, network_namespace=network_namespace,
        identity=identity, health=f"https://{ip}:10254/readyz", address=f"{ip}:80",
    )  # fmt: skip
