"""Keeps the zone in step with the API: each change of a Service, a slice or a namespace is in the zone when its handler
returns."""

from __future__ import annotations

from machinery.api.service_views import EndpointSlice, Namespace, Service, slice_service
from machinery.client.informer import Informer
from services.dns.records import service_records
from services.dns.zone import Zone


class ZoneWatch:
    """Wires three informers to a zone. Handlers run synchronously, so a client that saw a change committed soon sees it
    served."""

    def __init__(
        self,
        zone: Zone,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        namespaces: Informer[Namespace],
    ) -> None:
        self.zone = zone
        self.services = services
        self.slices = slices
        self.namespaces: set[str] = set()
        services.add_handler(self._service_changed)
        slices.add_handler(self._slice_changed)
        namespaces.add_handler(self._namespace_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        changed = new or old
        assert changed is not None
        self._refresh(f"{changed.metadata.namespace}/{changed.metadata.name}")

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for key in {key for piece in (old, new) if piece is not None for key in slice_service(piece)}:
            self._refresh(key)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        for namespace in (old, new):
            if namespace is not None:
                change = self.namespaces.add if namespace is new else self.namespaces.discard
                change(namespace.metadata.name)
                self.zone.generation += 1

    def _refresh(self, key: str) -> None:
        service = self.services.lister.by_key(key)
        if service is None:
            self.zone.replace(key, ())
        else:
            self.zone.replace(
                key, service_records(service, self.slices.lister.by_index("service", key), self.zone.domain)
            )
