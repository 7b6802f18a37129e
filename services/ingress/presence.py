"""Where this cluster's Ingresses are served: each instance enters its address, one of them tells the Ingresses.

An instance is an endpoint of the Service `kube-system/ingress` (an EndpointSlice of its own, as the DNS servers do it).
The addresses of an Ingress are those of the instances on Ready nodes; the first of these instances by name writes them,
and the Events. Everyone works out the same first one, so nobody needs a Lease; if two differ for a moment, they write
the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from machinery.api.instances import instance_slice
from machinery.api.service_views import EndpointSlice
from services.ingress.api import Node

NAMESPACE = "kube-system"
SERVICE = "ingress"
MANAGED_BY = "ingress.cutaway.dev"


def endpoint_slice(node: str, ip: str, http: int, https: int) -> dict[str, object]:
    """The slice of the instance on a node."""
    ports = [("http", "TCP", http), ("https", "TCP", https)]
    return instance_slice(SERVICE, NAMESPACE, node, ip, ports, MANAGED_BY)


def serving(slices: Iterable[EndpointSlice], nodes: Iterable[Node]) -> dict[str, str]:
    """Node -> address of each instance on a Ready node, by the nodes' names. Pure."""
    ready = {
        node.metadata.name
        for node in nodes
        if any(
            c.type == "Ready" and c.status == "True" for c in (node.status.conditions if node.status else None) or ()
        )
    }
    found = {
        item.node_name: item.addresses[0]
        for piece in slices
        for item in piece.endpoints or ()
        if item.node_name in ready and item.node_name and item.addresses
    }
    return dict(sorted(found.items()))


def is_writer(own: str, instances: dict[str, str]) -> bool:
    """Whether this instance tells the Ingresses."""
    return next(iter(instances), "") == own
