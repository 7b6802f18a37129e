"""The last part of coming up: the add-ons are applied, and every node becomes Ready in the API (by a watch)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lab import addons
from lab.cluster import Cluster
from lab.errors import LabError
from lab.up import admin_identity
from machinery.api import conditions, kinds
from machinery.client.api_client import ApiClient
from machinery.component.tls import TlsFiles

READY_SECONDS = 60.0


async def admin_client(cluster: Cluster) -> ApiClient:
    """A gRPC client as the admin."""
    identity = admin_identity(cluster)
    tls = TlsFiles(ca_file=str(identity.ca_file), cert_file=str(identity.cert_file), key_file=str(identity.key_file))
    return await ApiClient.connect(f"127.0.0.1:{cluster.port(6444)}", tls, user_agent="cutaway")


async def wait(cluster: Cluster, say: Callable[[str], None]) -> None:
    """Return when all nodes are Ready. Raises LabError naming those that are not after a minute."""
    waiting = {node.name for node in cluster.nodes}
    if not waiting:
        return
    client = await admin_client(cluster)
    began = time.monotonic()
    reason: dict[str, str] = {}
    try:
        await addons.apply(client, cluster, say)
        async with asyncio.timeout(READY_SECONDS):
            async for batch in client.watch(kinds.NODE):
                for _, node in batch.events:
                    ready = conditions.find_condition((node.status.conditions if node.status else None) or [], "Ready")
                    reason[node.metadata.name] = ready.message if ready else "it has not reported yet"
                    if ready and ready.status == "True" and node.metadata.name in waiting:
                        waiting.discard(node.metadata.name)
                        if time.monotonic() - began > 1:
                            say(f"{node.metadata.name} is Ready ({time.monotonic() - began:.1f} s)")
                if not waiting:
                    return
    except TimeoutError as error:
        why = "; ".join(f"{name}: {reason.get(name, 'it has not registered')}" for name in sorted(waiting))
        raise LabError(
            f"not Ready after {READY_SECONDS:.0f} s: {why}", "`cutaway logs kubelet-NODE` shows more"
        ) from error
    finally:
        await client.close()
