"""How fast controllers make pods, and how much memory they need: real processes, real store, no nodes.

    python benchmarks/controllers.py [--pods 2000] [--resident 10000]

Prints the rate from `create deployment` to the last pod of `--pods` created, the rate at which they go again, and the
resident memory of the controller-manager with `--resident` pods.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from machinery.api import kinds, objects
from tests.support.control_plane import ControlPlane
from tests.support.controllers import deployment


async def count(plane: ControlPlane) -> int:
    """Pods that there are."""
    return len(await plane.client.list(kinds.POD, decode=objects.decode_partial))


async def wait_for(plane: ControlPlane, wanted: int) -> float:
    """Wait for so many pods; when the last one was there."""
    while await count(plane) != wanted:  # noqa: ASYNC110 - what is waited for is in another process
        await asyncio.sleep(0.1)
    return time.perf_counter()


async def main(pods: int, resident: int) -> None:
    with tempfile.TemporaryDirectory(prefix="cutaway-bench-") as directory:
        async with ControlPlane(Path(directory), nodes=0) as plane:
            print(f"idle: controller-manager {plane.resident_megabytes:.0f} MB resident")
            begun = time.perf_counter()
            await plane.client.create(kinds.DEPLOYMENT, deployment("web", pods), "default")
            seconds = await wait_for(plane, pods) - begun
            print(f"Deployment of {pods}: {seconds:.2f} s, {pods / seconds:.0f} pods/s")
            begun = time.perf_counter()
            await plane.client.patch(kinds.DEPLOYMENT, "web", "default", {"spec": {"replicas": 0}})
            seconds = await wait_for(plane, 0) - begun
            print(f"scaled to 0: {seconds:.2f} s, {pods / seconds:.0f} pods/s")
            if resident:
                await plane.client.patch(kinds.DEPLOYMENT, "web", "default", {"spec": {"replicas": resident}})
                await wait_for(plane, resident)
                await asyncio.sleep(3)
                print(f"{resident} pods: controller-manager {plane.resident_megabytes:.0f} MB resident")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--resident", type=int, default=10_000)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.pods, arguments.resident))
