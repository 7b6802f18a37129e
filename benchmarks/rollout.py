"""How long a Deployment takes until all of it is Ready, with every part real but the containers.

    python -m benchmarks.rollout [--nodes 1000] [--replicas 2000]

An apiserver with its store, controller-manager, scheduler and hollow nodes (real kubelets on a simulated runtime, in
one process), each its own process, over mutual TLS. Prints the seconds from `create deployment` until the last pod was
created, bound and Ready and until the Deployment's status said so, and what each process used of the cpu meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from machinery.api import errors, kinds, objects
from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ROOT, ApiServerProcess, files, free_port
from tests.support.control_plane import ControlPlane
from tests.support.controllers import deployment
from tests.support.scheduler_process import SchedulerProcess

REGISTER_SECONDS_MAX = 120
ROLLOUT_SECONDS_MAX = 150


class HollowProcess:
    """A process of hollow nodes of this apiserver."""

    def __init__(self, apiserver: ApiServerProcess, directory: Path, nodes: int) -> None:
        pki = apiserver.pki
        client = files(pki.client("hollow", "system:hollow-nodes", ["system:masters"]))
        serving = files(pki.server("hollow", "system:node:hollow", ["127.0.0.1", "localhost"]))
        names = ("ca_file", "cert_file", "key_file")
        self.config, self.log = directory / "hollow.yaml", directory / "hollow.log"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "name": "hollow-nodes",
                    "apiserver": [apiserver.grpc],
                    "tls": {name: getattr(client, name) for name in names},
                    "serving": {name: getattr(serving, name) for name in names},
                    "grpc_address": f"127.0.0.1:{free_port()}",
                    "http_address": f"127.0.0.1:{free_port()}",
                    "nodes": [str(nodes)],
                }
            )
        )  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "services.kubelet.hollow", "--config", str(self.config)]
            self.process = subprocess.Popen(argv, cwd=ROOT, stderr=log, stdout=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


def cpu_seconds(pid: int) -> float:
    """What a process has used of the cpu so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def nodes_ready(client: ApiClient, wanted: int) -> None:
    """Wait until so many nodes are Ready and take pods."""
    while True:
        nodes = await client.list(kinds.NODE)
        ready = sum(
            not node.spec.taints and any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ())
            for node in nodes
        )
        if ready >= wanted:
            return
        await asyncio.sleep(0.5)


async def follow(client: ApiClient, wanted: int, seen: dict[str, float]) -> None:
    """Note when the last of so many pods was created, bound and Ready."""
    done: dict[str, set[str]] = {"created": set(), "bound": set(), "ready": set()}
    async for batch in client.watch(kinds.POD, "default", decode=objects.decode_dict):
        now = time.perf_counter()
        for _, pod in batch.events:
            uid = pod["metadata"]["uid"]
            done["created"].add(uid)
            if pod["spec"].get("nodeName"):
                done["bound"].add(uid)
            conditions = pod.get("status", {}).get("conditions", ())
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                done["ready"].add(uid)
        for what, uids in done.items():
            if len(uids) >= wanted:
                seen.setdefault(what, now)
        if "ready" in seen:
            return


async def available(client: ApiClient, wanted: int) -> float:
    """When the Deployment's status says that all are available."""
    while True:
        found = await client.get(kinds.DEPLOYMENT, "web", "default")
        if (found.status.availableReplicas or 0) >= wanted:
            return time.perf_counter()
        await asyncio.sleep(0.1)


async def measure(nodes: int, replicas: int) -> None:
    with tempfile.TemporaryDirectory(prefix="cutaway-bench-") as name:
        directory = Path(name)
        async with ControlPlane(directory, nodes=0, pretend=False) as plane:
            scheduler = SchedulerProcess(plane.server, directory)
            hollow = HollowProcess(plane.server, directory, nodes)
            try:
                begin = time.perf_counter()
                scheduler.start()
                hollow.start()
                async with asyncio.timeout(REGISTER_SECONDS_MAX):
                    await nodes_ready(plane.client, nodes)
                print(f"{nodes} hollow nodes ready in {time.perf_counter() - begin:.1f} s")
                await rollout(plane, scheduler, hollow, replicas)
            finally:
                hollow.stop()
                scheduler.stop(kill=True)


async def rollout(plane: ControlPlane, scheduler: SchedulerProcess, hollow: HollowProcess, replicas: int) -> None:
    parts = {
        "apiserver": plane.server.process, "controller-manager": plane.manager,
        "scheduler": scheduler.process, "hollow nodes": hollow.process,
    }  # fmt: skip
    processes = {what: process.pid for what, process in parts.items() if process is not None}
    before = {what: cpu_seconds(pid) for what, pid in processes.items()}
    seen: dict[str, float] = {}
    following = asyncio.create_task(follow(plane.client, replicas, seen))
    template: dict[str, Any] = deployment("web", replicas)
    begin = time.perf_counter()
    await plane.client.create(kinds.DEPLOYMENT, template, "default")
    try:
        async with asyncio.timeout(ROLLOUT_SECONDS_MAX):
            await following
            seen["available"] = await available(plane.client, replicas)
    except TimeoutError as err:
        raise errors.Timeout(f"not all Ready after {ROLLOUT_SECONDS_MAX} s; done: {sorted(seen)}") from err
    print(
        f"Deployment of {replicas}: "
        + ", ".join(f"{what} {seen[what] - begin:.1f} s" for what in ("created", "bound", "ready", "available"))
    )
    used = {what: cpu_seconds(pid) - before[what] for what, pid in processes.items()}
    print("cpu: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in used.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=2000)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.nodes, arguments.replicas))


if __name__ == "__main__":
    main()
