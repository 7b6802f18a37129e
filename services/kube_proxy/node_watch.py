"""Tells who depends on the nodes about every change of them, one update at a time, gathering what came meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from machinery.client.informer import Informer
from services.kube_proxy.api import Node

ZONE_LABEL = "topology.kubernetes.io/zone"


async def follow(nodes: Informer[Node], act: Callable[[list[Node]], Awaitable[None]]) -> None:
    """Call `act` with all nodes, now and after every change that matters to a network (heartbeats do not)."""
    changed = asyncio.Event()

    def note(old: Node | None, new: Node | None) -> None:
        if old != new:
            changed.set()

    nodes.add_handler(note)
    await nodes.synced.wait()
    while True:
        changed.clear()
        await act(nodes.lister.list())
        await changed.wait()


def zone_of(nodes: list[Node], name: str) -> str:
    """The zone of a node; empty if it has none."""
    return next(((n.metadata.labels or {}).get(ZONE_LABEL, "") for n in nodes if n.metadata.name == name), "")
