"""A big cluster on one small machine: every part real but the containers.

    python -m benchmarks.big [--nodes 1000] [--pods 20000] [--deployments 20]

An apiserver with its store, controller-manager, scheduler and hollow nodes (real kubelets on a simulated runtime, in
one process), each its own process, over mutual TLS. Deployments are made one after the other; after each it prints how
many pods are Ready, the rate of the last ones, and what each process holds of memory and has used of the cpu. Then what
the cluster costs while it idles, and how long a list of everything and a new pod take.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rollout import HollowProcess, cpu_seconds, nodes_ready
from machinery.api import kinds, objects
from machinery.client.api_client import ApiClient
from tests.support.control_plane import ControlPlane
from tests.support.controllers import deployment
from tests.support.scheduler_process import SchedulerProcess

REGISTER_SECONDS_MAX = 180
WAVE_SECONDS_MAX = 300
IDLE_SECONDS = 20


class Ready:
    """How many pods are Ready, from one watch."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._ready: set[str] = set()
        self._grown = asyncio.Event()

    async def run(self) -> None:
        """Follow for ever."""
        async for batch in self._client.watch(kinds.POD, "default", decode=objects.decode_dict):
            for verb, pod in batch.events:
                conditions = pod.get("status", {}).get("conditions", ())
                is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                if is_ready and verb != "DELETED":
                    self._ready.add(pod["metadata"]["uid"])
                else:
                    self._ready.discard(pod["metadata"]["uid"])
            self._grown.set()

    async def wait(self, wanted: int) -> None:
        """Until so many are."""
        while len(self._ready) < wanted:
            self._grown.clear()
            await self._grown.wait()


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def told(parts: Mapping[str, int], before: Mapping[str, float], seconds: float) -> str:
    """Memory, and cores used since `before`, of each process."""
    return ", ".join(
        f"{name} {memory_mb(pid):.0f} MB {(cpu_seconds(pid) - before[name]) / seconds:.2f} cores"
        for name, pid in parts.items()
    )


async def measure(nodes: int, pods: int, deployments: int) -> None:
    """Bring it up, fill it, look at it."""
    with tempfile.TemporaryDirectory(prefix="cutaway-big-") as name:
        directory = Path(name)
        async with ControlPlane(directory, nodes=0, pretend=False) as plane:
            scheduler = SchedulerProcess(plane.server, directory)
            hollow = HollowProcess(plane.server, directory, nodes)
            try:
                began = time.perf_counter()
                scheduler.start()
                hollow.start()
                async with asyncio.timeout(REGISTER_SECONDS_MAX):
                    await nodes_ready(plane.client, nodes)
                print(f"{nodes} hollow nodes ready in {time.perf_counter() - began:.1f} s", flush=True)
                processes: dict[str, Any] = {
                    "apiserver": plane.server.process, "controller-manager": plane.manager,
                    "scheduler": scheduler.process, "hollow nodes": hollow.process,
                }  # fmt: skip
                parts = {name: process.pid for name, process in processes.items()}
                ready = Ready(plane.client)
                following = asyncio.create_task(ready.run())
                try:
                    await fill(plane.client, ready, parts, pods, deployments)
                    await look(plane.client, ready, parts, pods)
                finally:
                    following.cancel()
            finally:
                hollow.stop()
                scheduler.stop(kill=True)


async def fill(client: ApiClient, ready: Ready, parts: Mapping[str, int], pods: int, deployments: int) -> None:
    """One Deployment after the other."""
    begin, each = time.perf_counter(), pods // deployments
    for number in range(deployments):
        before, began = {name: cpu_seconds(pid) for name, pid in parts.items()}, time.perf_counter()
        body = deployment(f"web-{number}", each)
        await client.create(kinds.DEPLOYMENT, body, "default")
        async with asyncio.timeout(WAVE_SECONDS_MAX):
            await ready.wait((number + 1) * each)
        took = time.perf_counter() - began
        print(
            f"{(number + 1) * each} pods Ready, the last {each} at {each / took:.0f}/s; {told(parts, before, took)}",
            flush=True,
        )
    total = time.perf_counter() - begin
    print(f"{pods} pods Ready in {total:.1f} s: {pods / total:.0f}/s", flush=True)


async def look(client: ApiClient, ready: Ready, parts: Mapping[str, int], pods: int) -> None:
    """What it costs and how it answers, full."""
    before = {name: cpu_seconds(pid) for name, pid in parts.items()}
    await asyncio.sleep(IDLE_SECONDS)
    print(f"idle for {IDLE_SECONDS} s: {told(parts, before, IDLE_SECONDS)}", flush=True)
    began = time.perf_counter()
    listed = await client.list(kinds.POD, decode=bytes)
    print(f"a list of {len(listed.items)} pods over gRPC: {time.perf_counter() - began:.2f} s", flush=True)
    began = time.perf_counter()
    await client.create(kinds.DEPLOYMENT, deployment("one-more", 1), "default")
    await ready.wait(pods + 1)
    print(f"one Deployment of one pod more, Ready: {1000 * (time.perf_counter() - began):.0f} ms", flush=True)


def main() -> None:
    """Run with the numbers of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--deployments", type=int, default=20)
    options = parser.parse_args()
    asyncio.run(measure(options.nodes, options.pods, options.deployments))


if __name__ == "__main__":
    main()
