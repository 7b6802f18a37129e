"""Waits until every node of the lab is Ready in the API, by a watch."""

from __future__ import annotations

import asyncio
import time

from lightkube.models import core_v1

from lab.cluster import Cluster
from lab.errors import LabError
from lab.progress import Say
from machinery.api import conditions, kinds
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer

READY_SECONDS = 60.0


async def wait(client: ApiClient, cluster: Cluster, say: Say) -> None:
    """Return when all nodes are Ready. Raises LabError naming those that are not after a minute."""
    reasons = {node.name: "it has not registered" for node in cluster.nodes}
    began = time.monotonic()
    all_ready = asyncio.Event()

    def changed(_old: core_v1.Node | None, node: core_v1.Node | None) -> None:
        if node is None or node.metadata is None or node.metadata.name not in reasons:
            return
        ready = conditions.find_condition((node.status.conditions if node.status else None) or [], "Ready")
        if ready and ready.status == "True":
            del reasons[node.metadata.name]
            say(f"{node.metadata.name} is Ready ({time.monotonic() - began:.1f} s)")
            if not reasons:
                all_ready.set()
        else:
            reasons[node.metadata.name] = (ready.message if ready else "") or "it has not reported yet"

    if not reasons:
        return
    nodes: Informer[core_v1.Node] = Informer(client, kinds.NODE)
    nodes.add_handler(changed)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(nodes.run(), name="informer nodes")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await all_ready.wait()
        except TimeoutError as error:
            why = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
            hint = "`cutaway logs kubelet-NODE` shows more"
            raise LabError(f"not Ready after {READY_SECONDS:.0f} s: {why}", hint) from error
        finally:
            watching.cancel()
