"""Enters this instance as an endpoint of the `kube-dns` Service: an EndpointSlice of its own, by server-side apply.

The Service has `internalTrafficPolicy: Local`, so a pod's questions stay on its node.
"""

from __future__ import annotations

import asyncio

from machinery.api import errors, kinds
from machinery.api.instances import instance_slice
from machinery.client.api_client import ApiClient
from machinery.component import logs

log = logs.get("publish")
NAMESPACE = "kube-system"
SERVICE = "kube-dns"
MANAGED_BY = "dns.cutaway.dev"
RETRY_SECONDS_MAX = 30.0


async def publish(client: ApiClient, node: str, ip: str, port: int) -> None:
    """Apply the slice, trying until it works."""
    ports = [("dns", "UDP", port), ("dns-tcp", "TCP", port)]
    piece = instance_slice(SERVICE, NAMESPACE, node, ip, ports, MANAGED_BY)
    pause = 0.2
    while True:
        try:
            await client.apply(kinds.ENDPOINT_SLICE, piece, field_manager="dns", force=True)
        except errors.ApiError as error:
            log.warning("endpoint not published", error=str(error), pause_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)
        else:
            return
