"""Where the time of a pod's start goes, and what an idle kubelet costs.

    .venv/bin/python -m benchmarks.kubelet [--runtime plugin|shim] [--pods 20]

Starts a real apiserver, a containerd and a kubelet of its own; prints create → Ready one by one and all at once, how
much of it the three CRI calls take and how much is ours, deletion, how long a container's exit takes to a watcher of
the API, and the kubelet's memory and idle cpu with 30 pods.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.kubelet_node import Cluster, KubeletNode, busybox, is_ready
from tests.support.private_containerd import PrivateContainerd

PORT = 21680


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show(what: str, values: list[float]) -> None:
    """Middle and range, in seconds."""
    print(
        f"{what:<42} p50 {statistics.median(values):6.3f} s   ({min(values):.3f} to {max(values):.3f}, n={len(values)})"
    )


def cri_seconds(cluster: Cluster) -> float:
    """What the kubelet has waited for the three calls that start a pod, by its own metrics."""
    context = tls_context(cluster)
    url = f"https://{cluster.node.settings['http_address']}/metrics"
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        text = answer.read().decode()
    calls = ("run_podsandbox", "create_container", "start_container")
    names = [f'kubelet_runtime_operations_duration_seconds_sum{{operation_type="{call}"}}' for call in calls]
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(tuple(names)))


def tls_context(cluster: Cluster) -> ssl.SSLContext:
    admin = files(cluster.apiserver.admin)
    context = ssl.create_default_context(cafile=str(cluster.apiserver.pki.ca_file))
    context.load_cert_chain(admin.cert_file, admin.key_file)
    return context


async def one_by_one(cluster: Cluster, count: int) -> None:
    """Create → Ready, then delete → gone, one pod at a time."""
    ready, gone = [], []
    cri_before = await asyncio.to_thread(cri_seconds, cluster)
    for number in range(count):
        name = f"one-{number}"
        began = time.perf_counter()
        await cluster.pod(name, "bench", {"containers": [busybox()]})
        await cluster.until_ready(name, "bench")
        ready.append(time.perf_counter() - began)
        began = time.perf_counter()
        await cluster.client.delete(kinds.POD, name, "bench", grace_period_seconds=1)
        await cluster.gone(name, "bench")
        gone.append(time.perf_counter() - began)
    calls = (await asyncio.to_thread(cri_seconds, cluster) - cri_before) / count
    show("pod create → Ready, one by one", ready)
    mean = statistics.mean(ready)
    ours = mean - calls
    print(f"  mean {mean:.3f} s: RunPodSandbox, CreateContainer, StartContainer {calls:.3f} s, ours {ours:.3f} s")
    show("pod delete → gone (ends at once on TERM)", gone)


def process_of(word: str) -> int:
    """The process that was started with this word as its last argument."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-2:-1] == [word.encode()]:
            return int(directory.name)
    raise LookupError(word)


async def exits(cluster: Cluster, count: int) -> None:
    """From the kill of a container's process to the watch event that shows it as terminated."""
    names = [f"exit-{number}" for number in range(count)]
    words = {name: str(1_000_001 + number) for number, name in enumerate(names)}
    for name in names:
        spec = {"restartPolicy": "Never", "containers": [{**busybox(), "command": ["sleep", words[name]]}]}
        await cluster.pod(name, "bench", spec)
    for name in names:
        await cluster.until_ready(name, "bench", 60)
    seen: dict[str, float] = {}

    async def follow() -> None:
        async for batch in cluster.client.watch(kinds.POD, "bench"):
            now = time.perf_counter()
            for _, pod in batch.events:
                statuses = (pod.status.containerStatuses or []) if pod.status else []
                if any(entry.state and entry.state.terminated for entry in statuses):
                    seen.setdefault(pod.metadata.name, now)
            if all(name in seen for name in names):
                return

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0.5)
    killed = {}
    for name in names:
        pid = process_of(words[name])
        killed[name] = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.3)
    async with asyncio.timeout(30):
        await follower
    took = sorted(seen[name] - killed[name] for name in names)
    show("container's exit → a watcher of the API", took)
    print(f"  p99 {took[min(len(took) - 1, int(len(took) * 0.99))] * 1000:.0f} ms")
    await cluster.client.delete_collection(kinds.POD, "bench", grace_period_seconds=0)


async def at_once(cluster: Cluster, count: int, prefix: str) -> None:
    """Create many at once; the time until the last is Ready."""
    began = time.perf_counter()
    await asyncio.gather(*(cluster.pod(f"{prefix}-{n}", "bench", {"containers": [busybox()]}) for n in range(count)))
    await asyncio.gather(*(cluster.until_ready(f"{prefix}-{n}", "bench", 60) for n in range(count)))
    print(f"{count} pods at once → all Ready{'':<18} {time.perf_counter() - began:10.3f} s")


async def idle(cluster: Cluster, node: KubeletNode, seconds: float) -> None:
    """Memory and cpu with 30 pods that do nothing."""
    assert node.process is not None
    spec: dict[str, Any] = {"containers": [{**busybox(), "command": ["sleep", "1000000"]}]}
    await asyncio.gather(*(cluster.pod(f"idle-{n}", "bench", spec) for n in range(30)))
    for number in range(30):
        await cluster.wait(kinds.POD, f"idle-{number}", "bench", is_ready, 60)
    await asyncio.sleep(3)
    before = cpu_seconds(node.process.pid)
    await asyncio.sleep(seconds)
    used = (cpu_seconds(node.process.pid) - before) / seconds * 100
    print(f"30 idle pods: kubelet {node.rss_bytes() / 1e6:.0f} MB resident, {used:.2f} % of a core")


async def run(arguments: argparse.Namespace, apiserver: ApiServerProcess, node: KubeletNode) -> None:
    client = await ApiClient.connect(apiserver.grpc, files(apiserver.admin), user_agent="benchmark")
    cluster = Cluster(apiserver, client, node)
    await cluster.prepare("bench")
    began = time.perf_counter()
    node.start()
    await cluster.ready_node()
    print(f"kubelet start → node Ready{'':<20} {time.perf_counter() - began:10.3f} s")
    await one_by_one(cluster, arguments.pods)
    await exits(cluster, arguments.exits)
    await at_once(cluster, 20, "burst")
    await idle(cluster, node, arguments.idle_seconds)
    await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=("plugin", "shim"), default="shim")
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--exits", type=int, default=40)
    parser.add_argument("--idle-seconds", type=float, default=20)
    arguments = parser.parse_args()
    with (
        PrivateContainerd("kubelet-bench-", "10.219.0.0/24", "kb0", shim=arguments.runtime == "shim") as daemon,
        tempfile.TemporaryDirectory(prefix="kubelet-bench-api-") as directory,
    ):
        apiserver = ApiServerProcess(Path(directory)).start()
        node = KubeletNode(apiserver, daemon.endpoint, daemon.dir / "node", PORT)
        try:
            print(f"runtime: {arguments.runtime}")
            asyncio.run(run(arguments, apiserver, node))
        finally:
            if node.process is not None:
                node.stop()
            node.clean()
            apiserver.stop()


if __name__ == "__main__":
    main()
