"""How fast pods are bound with the real apiserver, its store and the real scheduler process, over mutual TLS.

    python -m benchmarks.scheduler_cluster [--nodes 5000] [--pods 10000] [--workload plain]

Nodes are objects only. Pods are created in batches before the scheduler starts, so that the figure is that of deciding
and binding, from the first binding to the last; the events that the scheduler writes about each pod are part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from machinery.api import kinds
from machinery.client.api_client import ApiClient, Mutation
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.scheduler_process import SchedulerProcess

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
SELECTOR = {"matchLabels": {"app": "web"}}
WORKLOADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "anti-affinity": {
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": HOST, "labelSelector": SELECTOR}]
            }
        }
    },
    "spread": {
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": SELECTOR}
        ]
    },
}


def node(number: int) -> dict[str, Any]:
    offered = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    labels = {HOST: f"node{number}", ZONE: f"zone{number % 3}"}
    status = {"allocatable": offered, "capacity": offered}
    metadata = {"name": f"node{number}", "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}


def pod(number: int, extra: dict[str, Any]) -> dict[str, Any]:
    container = {
        "name": "c", "image": "registry.example/web:1", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
    }  # fmt: skip
    metadata = {"name": f"pod{number}", "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **extra}}


async def fill(client: ApiClient, nodes: int, pods: int, extra: dict[str, Any]) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, "default")
    mutations = [Mutation.create(kinds.NODE, node(number)) for number in range(nodes)]
    # A new node is tainted not-ready until its controller says otherwise; there is none here.
    mutations += [Mutation.patch(kinds.NODE, f"node{n}", "", {"spec": {"taints": None}}) for n in range(nodes)]
    mutations += [Mutation.create(kinds.POD, pod(number, extra), "default") for number in range(pods)]
    results = await client.batch(mutations, timeout=120)
    failed = [result.error for result in results if result.error]
    assert not failed, failed[0]


async def bound(client: ApiClient, count: int) -> tuple[float, float]:
    """When the first and the last of so many pods were bound."""
    first, seen = 0.0, set()
    async for batch in client.watch(kinds.POD, "default", field_selector="spec.nodeName!=", decode=lambda raw: raw):
        for _ in batch.events:
            pass
        if batch.events and not first:
            first = time.perf_counter()
        seen.update(raw[raw.index(b'"name":"pod') : raw.index(b'"name":"pod') + 24] for _, raw in batch.events)
        if len(seen) >= count:
            return first, time.perf_counter()
    raise AssertionError("unreachable")


async def measure(nodes: int, pods: int, workload: str) -> None:
    with tempfile.TemporaryDirectory(prefix="cutaway-bench-") as name:
        directory = Path(name)
        apiserver = ApiServerProcess(directory)
        apiserver.start()
        scheduler = SchedulerProcess(apiserver, directory)
        client = await ApiClient.connect(apiserver.grpc, files(apiserver.admin), user_agent="benchmark")
        try:
            begin = time.perf_counter()
            await fill(client, nodes, pods, WORKLOADS[workload])
            made = time.perf_counter() - begin
            watching = asyncio.create_task(bound(client, pods))
            scheduler.start()
            first, last = await watching
            print(
                f"{workload}: {nodes} nodes and {pods} pods created in {made:.1f} s; "
                f"bound in {last - first:.2f} s: {pods / (last - first):.0f} pods/s; "
                f"scheduler {scheduler.resident_mb():.0f} MB, {scheduler.cpu_seconds():.1f} s of cpu"
            )
        finally:
            await client.close()
            scheduler.stop()
            apiserver.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="plain")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.nodes, arguments.pods, arguments.workload))


if __name__ == "__main__":
    main()
