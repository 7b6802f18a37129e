"""How an instance of a node's own service (DNS, Ingress) enters itself as an endpoint of its Service."""

from __future__ import annotations

from collections.abc import Iterable

from machinery.api.service_views import SERVICE_NAME_LABEL

MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"


def instance_slice(
    service: str, namespace: str, node: str, ip: str, ports: Iterable[tuple[str, str, int]], managed_by: str
) -> dict[str, object]:
    """An EndpointSlice with one endpoint, for server-side apply; it is called SERVICE-NODE.

    `ports` are (name, protocol, number). One slice an instance, so that none writes what is another's.
    """
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{node}",
            "namespace": namespace,
            "labels": {SERVICE_NAME_LABEL: service, MANAGED_BY_LABEL: managed_by},
        },
        "addressType": "IPv6" if ":" in ip else "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}, "nodeName": node}],
        "ports": [{"name": name, "protocol": protocol, "port": number} for name, protocol, number in ports],
    }
