"""Tells who depends on the nodes about every change of them, one update at a time, gathering what came meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from machinery.client.informer import Informer
from services.kube_proxy.api import Node

ZONE_LABEL = "topology.kubernetes.io/zone"


async def follow(
    nodes: Informer[Node], act: Callable[[list[Node]], Awaitable[None]], again_seconds: float | None = None
) -> None:
    """Call `act` with all nodes, now and after every change that matters to a network (heartbeats do not).

    With `again_seconds` also when nothing changed for so long: for what this node itself may lose.
    """
    changed = asyncio.Event()

    def note(old: Node | None, new: Node | None) -> None:
        if old != new:
            changed.set()

    nodes.add_handler(note)
    await nodes.synced.wait()
    while True:
        changed.clear()
        await act(nodes.lister.list())
        try:
            async with asyncio.timeout(again_seconds):
                await changed.wait()
        except TimeoutError:
            continue


def zone_of(nodes: list[Node], name: str) -> str:
    """The zone of a node; empty if it has none."""
    return next(((n.metadata.labels or {}).get(ZONE_LABEL, "") for n in nodes if n.metadata.name == name), "")
