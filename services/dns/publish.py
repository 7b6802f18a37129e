"""Enters this instance as an endpoint of the `kube-dns` Service: an EndpointSlice of its own, by server-side apply.

The Service has `internalTrafficPolicy: Local`, so a pod's questions stay on its node.
"""

from __future__ import annotations

import asyncio

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.component import logs

log = logs.get("publish")
NAMESPACE = "kube-system"
SERVICE = "kube-dns"
RETRY_SECONDS_MAX = 30.0


def endpoint_slice(node: str, ip: str, port: int) -> dict[str, object]:
    """The slice of the instance on a node."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{SERVICE}-{node}",
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": "dns.cutaway.dev",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}, "nodeName": node}],
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": port},
            {"name": "dns-tcp", "protocol": "TCP", "port": port},
        ],
    }


async def publish(client: ApiClient, node: str, ip: str, port: int) -> None:
    """Apply the slice, trying until it works."""
    pause = 0.2
    while True:
        try:
            await client.apply(kinds.ENDPOINT_SLICE, endpoint_slice(node, ip, port), field_manager="dns", force=True)
        except errors.ApiError as error:
            log.warning("endpoint not published", error=str(error), pause_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)
        else:
            return
