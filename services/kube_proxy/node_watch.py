"""Tells the pod network about every change of the nodes, one update at a time, gathering what came meanwhile."""

from __future__ import annotations

import asyncio

from lightkube.models import core_v1
from machinery.client.informer import Informer

from services.kube_proxy.network import PodNetwork


async def keep_routes(nodes: Informer[core_v1.Node], network: PodNetwork) -> None:
    """Update the routes for ever. Heartbeats change nodes too; `PodNetwork.update` does nothing for them."""
    changed = asyncio.Event()
    nodes.add_handler(lambda _old, _new: changed.set())
    await nodes.synced.wait()
    while True:
        changed.clear()
        await network.update(nodes.lister.list())
        await changed.wait()
