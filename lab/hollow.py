"""Nodes without containers: real kubelets on a simulated runtime, many in one process. For machines without root or
containerd."""

from __future__ import annotations

import sys

from lab.cluster import PROJECT_ROOT, Cluster
from lab.components import ENVIRONMENT, Component, client_of_apiserver, tls
from lab.pki import Pki
from lab.process_spec import ProcessSpec


def nodes(cluster: Cluster, pki: Pki) -> list[Component]:
    """One process with a kubelet for every node."""
    web, grpc = cluster.port(10250), cluster.port(10350)
    serving = pki.server("hollow", "system:node:hollow", ["localhost", "127.0.0.1"], ["system:nodes"])
    config = {
        "name": "hollow-nodes",
        "log_format": "json",
        # Many nodes share one process and one connection, so it acts as the group's administrator, not as one node.
        **client_of_apiserver(cluster, pki.client("hollow", "system:hollow-nodes", ["system:masters"])),
        "serving": tls(serving),
        "http_address": f"127.0.0.1:{web}",
        "grpc_address": f"127.0.0.1:{grpc}",
        "nodes": [node.name for node in cluster.nodes],
    }
    path = cluster.home / "config" / "hollow-nodes.yaml"
    spec = ProcessSpec(
        name="hollow-nodes",
        component="hollow-nodes",
        argv=[sys.executable, "-m", "services.kubelet.hollow", "--config", str(path)],
        log=str(cluster.home / "logs" / "hollow-nodes.log"),
        environment=ENVIRONMENT | {"PYTHONPATH": str(PROJECT_ROOT)},
        health=f"https://127.0.0.1:{web}/readyz",
        address=f"127.0.0.1:{grpc}",
    )
    return [Component(spec, config)]
