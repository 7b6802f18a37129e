"""A cluster inside a test: a real apiserver, real controllers, a real scheduler and hollow nodes, isolated, ready in
about a second.

    from lab.testing import cluster

    with cluster(nodes=2) as running:
        subprocess.run(["kubectl", "apply", "-f", "app.yaml"], env=running.environment)

It needs neither root nor containerd: the nodes' containers are simulated. Everything runs in one child process, on
ports of its own, with state in a temporary folder; clusters run side by side. `lab.pytest_plugin` offers it as
fixtures.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import components, health, kubeconfig
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.nodes import Node, node_name
from lab.pki import Identity, Pki
from machinery.client.api_client import ApiClient
from machinery.component import yaml_text
from machinery.component.tls import TlsFiles

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
ASK_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """What a test needs of it."""

    home: Path
    # https://127.0.0.1:port
    server: str
    grpc_address: str
    kubeconfig: Path
    admin: Identity
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which kubectl, helm and client libraries use this cluster."""
        return dict(os.environ) | {"KUBECONFIG": str(self.kubeconfig)}

    async def client(self) -> ApiClient:
        """A gRPC client as the administrator; close it."""
        tls = TlsFiles(
            ca_file=str(self.admin.ca_file), cert_file=str(self.admin.cert_file), key_file=str(self.admin.key_file)
        )
        return await ApiClient.connect(self.grpc_address, tls, user_agent="test")


@contextmanager
def cluster(*, nodes: int = 1, controllers: Sequence[str] = ("*",), scheduler: bool = True) -> Iterator[RunningCluster]:
    """A cluster with so many hollow nodes, gone afterwards. Raises LabError with the log's end if it does not come
    up."""
    home = Path(tempfile.mkdtemp(prefix="cutaway-test-"))
    try:
        running, process = _start(home, nodes, controllers, scheduler)
        try:
            _wait_ready(running, process)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _start(
    home: Path, nodes: int, controllers: Sequence[str], scheduler: bool
) -> tuple[RunningCluster, subprocess.Popen[bytes]]:
    pki = Pki(home / "pki")
    pki.ensure("test")
    plan = Cluster(home, 0, tuple(Node(node_name(index), index) for index in range(nodes)), hollow=True)
    rest, grpc, hollow_web, hollow_grpc = _free_ports(4)
    parts = _parts(plan, pki, rest, grpc, controllers, scheduler, (hollow_web, hollow_grpc))
    (home / "config").mkdir()
    listing = []
    for module, config in parts:
        path = home / "config" / f"{config['name']}.yaml"
        path.write_text(yaml_text.dump(config))
        listing.append([module, ["--config", str(path)]])
    (home / "parts.json").write_text(json.dumps(listing))
    admin = pki.client("admin", "kubernetes-admin", ["system:masters"])
    server = f"https://127.0.0.1:{rest}"
    kubeconfig.write(home / "kubeconfig", cluster="test", server=server, user="kubernetes-admin", identity=admin)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.together", str(home / "parts.json")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT_ROOT,
            env=os.environ | components.ENVIRONMENT | {"PYTHONPATH": str(PROJECT_ROOT)},
        )  # fmt: skip
    return RunningCluster(home, server, f"127.0.0.1:{grpc}", home / "kubeconfig", admin, process.pid), process


def _parts(
    plan: Cluster,
    pki: Pki,
    rest: int,
    grpc: int,
    controllers: Sequence[str],
    scheduler: bool,
    hollow_ports: tuple[int, int],
) -> list[tuple[str, dict[str, Any]]]:
    """Module and configuration of each part: the lab's own, with ports of this cluster and no servers that nobody
    asks."""
    from lab import hollow

    found = [*components.control_plane(plan, pki), *(hollow.nodes(plan, pki) if plan.nodes else [])]
    modules = {
        "apiserver": "services.apiserver",
        "scheduler": "services.scheduler",
        "controller-manager": "services.controller_manager",
        "hollow-nodes": "services.kubelet.hollow",
    }
    parts = []
    for part in found:
        config: dict[str, Any] = dict(part.config or {})
        name = part.spec.component
        if name == "scheduler" and not scheduler:
            continue
        if name == "apiserver":
            config |= {"rest_address": f"127.0.0.1:{rest}", "grpc_address": f"127.0.0.1:{grpc}", "advertise_port": rest}
        else:
            config |= {"apiserver": [f"127.0.0.1:{grpc}"], "http_address": "", "grpc_address": ""}
        if name == "controller-manager":
            config["controllers"] = list(controllers)
            # There is only one: waiting for a Lease would be waiting for nobody.
            config["leader_election"] = {"enabled": False}
        if name == "scheduler":
            config["leader_elect"] = False
        if name == "hollow-nodes":
            config |= {"http_address": f"127.0.0.1:{hollow_ports[0]}", "grpc_address": f"127.0.0.1:{hollow_ports[1]}"}
        parts.append((modules[name], config))
    return parts


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_ready(running: RunningCluster, process: subprocess.Popen[bytes]) -> None:
    context = health.client_context(running.admin)
    deadline = time.monotonic() + READY_SECONDS
    while not _is_ready(f"{running.server}/api/v1/namespaces/default/serviceaccounts/default", context):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = (running.home / "log").read_text(errors="replace").splitlines()[-5:]
            raise LabError("the cluster did not come up", "\n".join(lines) or "its log is empty")
        time.sleep(ASK_PAUSE_SECONDS)


def _is_ready(url: str, context: ssl.SSLContext) -> bool:
    """Ready is: the controllers have made the account that pods need."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=context):  # noqa: S310 - https to a server of ours
            return True
    except (OSError, urllib.error.HTTPError):
        return False
