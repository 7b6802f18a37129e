"""The addresses of a backend, from EndpointSlices. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from machinery.api.service_views import EndpointItem, EndpointSlice
from services.ingress import grammar
from services.ingress.table import Backend, Endpoint

READY, DRAINING, GONE = "ready", "draining", "gone"


def endpoints_of(backend: Backend, slices: Iterable[EndpointSlice]) -> tuple[Endpoint, ...]:
    """Ready endpoints, and draining those that terminate and still serve.

    If there are only the latter, they serve: better than nobody, as in kube-proxy.
    """
    found: dict[tuple[str, int], bool] = {}
    for piece in slices:
        ports = [
            port.port
            for port in piece.ports or ()
            if (port.name or "") == backend.port_name and (port.protocol or "TCP") == "TCP" and port.port
        ]
        if piece.address_type not in ("IPv4", "IPv6"):
            continue
        for item in piece.endpoints or ():
            state = _state(item)
            if state == GONE or not item.addresses or not grammar.address(item.addresses[0]):
                continue
            for port in ports:
                at = (item.addresses[0], port)
                found[at] = found.get(at, True) and state == DRAINING
    all_drain = all(found.values())
    return tuple(Endpoint(ip, port, drains and not all_drain) for (ip, port), drains in sorted(found.items()))


def _state(item: EndpointItem) -> str:
    conditions = item.conditions
    if conditions is None or conditions.ready is not False:
        return READY
    return DRAINING if conditions.serving and conditions.terminating else GONE
