"""The loop: what changed in the API becomes one nft transaction.

Invariants: `applied` is what the kernel holds; it changes only after nft has accepted a transaction. Changes that
arrive while nft works are gathered and go into the next one. If nft refuses a difference, the kernel may hold something
else than we think (somebody flushed it, say), so the whole table is written anew, after a growing pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog
from lightkube.models import core_v1, discovery_v1
from machinery.client.informer import Informer

from machinery.component import metrics
from services.kube_proxy import render
from services.kube_proxy.nft import Nft, NftError
from services.kube_proxy.ruleset import SERVICE_NAME_LABEL, Ruleset, ServicePort, Settings, service_ports

log = structlog.get_logger()

RETRY_SECONDS_FIRST = 0.5
RETRY_SECONDS_MAX = 30.0

sync_seconds = metrics.histogram("kubeproxy_sync_proxy_rules_duration_seconds", "Time of one change of the rules.")
sync_failures = metrics.counter(
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "Transactions that nft refused."
)
synced_at = metrics.gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When the rules were last in step.")


def slice_service(piece: discovery_v1.EndpointSlice) -> list[str]:
    """The key of the Service that a slice belongs to (an index for the informer)."""
    if piece.metadata is None:
        return []
    name = (piece.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return [f"{piece.metadata.namespace}/{name}"] if name else []


class Proxy:
    """Keeps the table in step with Services and EndpointSlices."""

    def __init__(
        self,
        services: Informer[core_v1.Service],
        slices: Informer[discovery_v1.EndpointSlice],
        nft: Nft,
        settings: Settings,
    ) -> None:
        self.services = services
        self.slices = slices
        self.nft = nft
        self.settings = settings
        # None until the first full sync, and after a refusal.
        self.applied: Ruleset | None = None
        self.dirty: set[str] = set()
        self.wake = asyncio.Event()
        self.keys_of_service: dict[str, set[str]] = {}
        services.add_handler(self._service_changed)
        slices.add_handler(self._slice_changed)

    @property
    def in_step(self) -> bool:
        """Whether the kernel holds the rules of everything that was seen."""
        return self.applied is not None and not self.dirty

    async def run(self) -> None:
        """Sync for ever."""
        await self.services.synced.wait()
        await self.slices.synced.wait()
        pause = RETRY_SECONDS_FIRST
        while True:
            try:
                await self._sync()
                pause = RETRY_SECONDS_FIRST
            except NftError as error:
                sync_failures.inc()
                log.error("nft refused the rules; writing them anew", error=str(error), pause_seconds=pause)
                self.applied = None
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
                continue
            await self.wake.wait()

    async def _sync(self) -> None:
        self.wake.clear()
        began = time.monotonic()
        if self.applied is None:
            self.dirty.clear()
            wanted = Ruleset(self.settings, self._ports(self.services.lister.keys()))
            transaction = render.full(wanted)
        else:
            wanted = self._with_changes(self.applied)
            transaction = render.difference(self.applied, wanted)
        if transaction:
            await self.nft.apply(transaction)
            sync_seconds.observe(time.monotonic() - began)
        self.applied = wanted
        synced_at.set_to_current_time()

    def _with_changes(self, applied: Ruleset) -> Ruleset:
        changed, self.dirty = self.dirty, set()
        ports = dict(applied.ports)
        for service in changed:
            for key in self.keys_of_service.pop(service, ()):
                ports.pop(key, None)
        ports.update(self._ports(changed))
        return Ruleset(self.settings, ports)

    def _ports(self, services: Iterable[str]) -> dict[str, ServicePort]:
        ports: dict[str, ServicePort] = {}
        for name in services:
            service = self.services.lister.by_key(name)
            if service is None:
                continue
            pieces = self.slices.lister.by_index("service", name)
            mine = {port.key: port for port in service_ports(service, pieces, self.settings)}
            self.keys_of_service[name] = set(mine)
            ports.update(mine)
        return ports

    def _service_changed(self, old: core_v1.Service | None, new: core_v1.Service | None) -> None:
        changed = new or old
        assert changed is not None
        assert changed.metadata is not None
        self._mark([f"{changed.metadata.namespace}/{changed.metadata.name}"])

    def _slice_changed(self, old: discovery_v1.EndpointSlice | None, new: discovery_v1.EndpointSlice | None) -> None:
        self._mark(key for piece in (old, new) if piece is not None for key in slice_service(piece))

    def _mark(self, services: Iterable[str]) -> None:
        self.dirty.update(services)
        self.wake.set()
