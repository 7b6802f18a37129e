"""What following the apiserver costs a component: events a second, memory for each object, cpu when nothing happens.

    python -m benchmarks.informer [--pods 5000] [--updates 10000]

The apiserver is the real one, in its own process; the informer runs here, decoding whole pods into lightkube's models.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from machinery.api import kinds, objects
from machinery.client.api_client import ApiClient, Mutation
from machinery.client.informer import Informer, wait_synced
from machinery.component import process
from machinery.component.tls import TlsFiles
from tests.support.apiserver_process import ApiServerProcess, files

IDLE_SECONDS = 5.0


def pod(number: int) -> dict[str, Any]:
    container = {
        "name": "web", "image": "registry.example/web:1.2.3", "ports": [{"containerPort": 80}],
        "env": [{"name": f"KEY_{i}", "value": "some value"} for i in range(5)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}},
    }  # fmt: skip
    metadata = {"name": f"pod{number}", "labels": {"app": "web", "n": str(number)}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def measure(grpc: str, admin: TlsFiles, pods: int, updates: int) -> None:
    client = await ApiClient.connect(grpc, admin, user_agent="benchmark")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, "default")
    made = await client.batch([Mutation.create(kinds.POD, pod(n), "default") for n in range(pods)], timeout=120)
    assert not any(result.error for result in made)
    one = objects.encode(await client.get(kinds.POD, "pod0", "default"))
    decode = objects.decoder_for(kinds.POD)
    begin = time.perf_counter()
    for _ in range(10_000):
        decode(one)
    print(f"decoding a pod of {len(one)} bytes: {(time.perf_counter() - begin) * 100:.1f} us")

    gc.collect()
    before = resident_bytes()
    informer: Informer[Any] = Informer(client, kinds.POD)
    seen = 0
    changed = asyncio.Event()

    def count(old: Any, new: Any) -> None:
        nonlocal seen
        seen += 1
        changed.set()

    informer.add_handler(count)
    begin = time.perf_counter()
    task = asyncio.create_task(informer.run())
    await wait_synced(informer, timeout=60)
    seconds = time.perf_counter() - begin
    gc.collect()
    per_pod = (resident_bytes() - before) / pods
    print(f"initial state of {pods} pods: {seconds:.2f} s, {pods / seconds:.0f} objects/s, {per_pod:.0f} bytes a pod")

    # The changes happen while nobody follows; then the history is read as fast as it comes.
    task.cancel()
    await asyncio.wait((task,))
    patches = [
        Mutation.patch(kinds.POD, f"pod{n % pods}", "default", {"metadata": {"labels": {"round": str(n)}}})
        for n in range(updates)
    ]
    await client.batch(patches, timeout=120)
    seen = 0
    begin = time.perf_counter()
    cpu = time.process_time()
    task = asyncio.create_task(informer.run())
    while seen < updates:
        changed.clear()
        await changed.wait()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(
        f"{updates} changes: {seconds:.2f} s, {updates / seconds:.0f} events/s; {cpu / updates * 1e6:.0f} us cpu each"
    )

    cpu = time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    print(f"idle for {IDLE_SECONDS:.0f} s: {(time.process_time() - cpu) / IDLE_SECONDS * 100:.2f} % of a core")
    task.cancel()
    await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--updates", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cutaway-bench-") as name:
        apiserver = ApiServerProcess(Path(name))
        apiserver.start()
        try:
            gc.set_threshold(*process.GC_THRESHOLDS)  # As in every component.
            uvloop.run(measure(apiserver.grpc, files(apiserver.admin), arguments.pods, arguments.updates))
        finally:
            apiserver.stop()


if __name__ == "__main__":
    main()
