"""Keeps the zone in step with the API: each change of a Service, a slice or a namespace is in the zone when its handler
returns."""

from __future__ import annotations

from lightkube.models import core_v1, discovery_v1

from machinery.client.informer import Informer
from services.dns.records import service_records
from services.dns.zone import Zone

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


def slice_service(piece: discovery_v1.EndpointSlice) -> list[str]:
    """The key of the Service that a slice belongs to (an index for the informer)."""
    if piece.metadata is None:
        return []
    name = (piece.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return [f"{piece.metadata.namespace}/{name}"] if name else []


class ZoneWatch:
    """Wires three informers to a zone. Handlers run synchronously, so a client that saw a change committed soon sees it
    served."""

    def __init__(
        self,
        zone: Zone,
        services: Informer[core_v1.Service],
        slices: Informer[discovery_v1.EndpointSlice],
        namespaces: Informer[core_v1.Namespace],
    ) -> None:
        self.zone = zone
        self.services = services
        self.slices = slices
        self.namespaces: set[str] = set()
        services.add_handler(self._service_changed)
        slices.add_handler(self._slice_changed)
        namespaces.add_handler(self._namespace_changed)

    def _service_changed(self, old: core_v1.Service | None, new: core_v1.Service | None) -> None:
        changed = new or old
        assert changed is not None
        assert changed.metadata is not None
        self._refresh(f"{changed.metadata.namespace}/{changed.metadata.name}")

    def _slice_changed(self, old: discovery_v1.EndpointSlice | None, new: discovery_v1.EndpointSlice | None) -> None:
        for key in {key for piece in (old, new) if piece is not None for key in slice_service(piece)}:
            self._refresh(key)

    def _namespace_changed(self, old: core_v1.Namespace | None, new: core_v1.Namespace | None) -> None:
        for namespace in (old, new):
            if namespace is not None and namespace.metadata is not None:
                change = self.namespaces.add if namespace is new else self.namespaces.discard
                change(namespace.metadata.name or "")
                self.zone.generation += 1

    def _refresh(self, key: str) -> None:
        service = self.services.lister.by_key(key)
        if service is None:
            self.zone.replace(key, ())
        else:
            self.zone.replace(
                key, service_records(service, self.slices.lister.by_index("service", key), self.zone.domain)
            )
