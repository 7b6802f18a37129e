"""Which nodes' pod ranges can't be served, because they are in the way of others'. Pure.

The controller-manager hands out ranges that do not overlap; nodes that bring their own (another allocator, a node of
another cluster that joined) may. A route to such a range would take packets from those who had the addresses first.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable

from services.kube_proxy.api import Node


def refused(nodes: Iterable[Node]) -> dict[str, str]:
    """Node -> why its spec.podCIDR is not routed. The older node keeps what two want; every node works out the same."""
    ordered = sorted(nodes, key=lambda n: (n.metadata.creation_timestamp or "", n.metadata.name))
    addresses = sorted((int(ip), str(ip), n.metadata.name) for n in ordered for ip in _addresses(n))
    # (first, last, range, node) of what is taken, by its first address; no two of them overlap.
    taken: list[tuple[int, int, str, str]] = []
    found: dict[str, str] = {}
    for node in ordered:
        if node.spec is None or not node.spec.pod_cidr:
            continue
        try:
            network = ipaddress.IPv4Network(node.spec.pod_cidr, strict=False)
        except ValueError:
            continue
        first, last = int(network[0]), int(network[-1])
        at = bisect.bisect(taken, (first,))
        near = [entry for entry in taken[max(0, at - 1) : at + 1] if entry[0] <= last and first <= entry[1]]
        inside = addresses[bisect.bisect_left(addresses, (first,)) : bisect.bisect(addresses, (last + 1,))]
        if near:
            found[node.metadata.name] = f"spec.podCIDR: {network} overlaps {near[0][2]} of node {near[0][3]}"
        elif inside:
            found[node.metadata.name] = f"spec.podCIDR: {network} holds {inside[0][1]}, the address of {inside[0][2]}"
        else:
            taken.insert(at, (first, last, str(network), node.metadata.name))
    return found


def _addresses(node: Node) -> Iterable[ipaddress.IPv4Address]:
    for entry in (node.status.addresses if node.status else None) or ():
        if entry.type == "InternalIP" and "." in entry.address:
            yield ipaddress.IPv4Address(entry.address)
