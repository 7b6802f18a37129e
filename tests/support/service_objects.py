"""Services and slices for tests of the network."""

import msgspec

from machinery.api.service_views import SERVICE_NAME_LABEL, EndpointSlice, Service

READY, ENDING, BROKEN = (True, True, False), (False, True, True), (False, False, False)


def service(name="web", **spec):
    """A Service with one TCP port 80 named http unless the spec says otherwise."""
    status, labels = spec.pop("status", {}), spec.pop("labels", {})
    ip = spec.pop("ip", "10.96.0.5")
    base = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    body = {"metadata": {"name": name, "namespace": "d", "labels": labels}, "spec": base | spec, "status": status}
    return msgspec.convert(body, Service)


def pieces(*endpoints, port=8080, name="http", protocol="TCP", service="web", hints=None):
    """One slice; each endpoint is (ip, node, state)."""
    items = [
        {
            "addresses": [ip],
            "nodeName": node,
            "conditions": dict(zip(("ready", "serving", "terminating"), state, strict=True)),
            **({"hints": hints[ip]} if hints else {}),
        }
        for ip, node, state in endpoints
    ]
    body = {
        "addressType": "IPv4",
        "metadata": {"name": f"{service}-1", "namespace": "d", "labels": {SERVICE_NAME_LABEL: service}},
        "endpoints": items,
        "ports": [{"name": name, "port": port, "protocol": protocol}],
    }
    return [msgspec.convert(body, EndpointSlice)]
