"""The loop: what changed in the API becomes one nft transaction.

Invariants: `table` is what the kernel holds once the transaction in work is accepted; `applied` is None until the first
one was. Changes that arrive while nft works are gathered and go into the next one. If nft refuses a difference, the
kernel may hold something else than we think (somebody flushed it, say), so the whole table is filled anew, in one
transaction, after a growing pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from machinery.api.service_views import EndpointSlice, Service, slice_service
from machinery.client.informer import Informer
from machinery.component import logs, metrics
from machinery.component.memory import give_back
from services.kube_proxy.nft import Names, Nft, NftError
from services.kube_proxy.render import TABLE
from services.kube_proxy.ruleset import Ruleset, ServicePort, Settings, service_ports
from services.kube_proxy.table import Table

log = logs.get("proxy")

RETRY_SECONDS_FIRST = 0.5
RETRY_SECONDS_MAX = 30.0
REPLACE = f"add table {TABLE}\ndelete table {TABLE}\n"

sync_seconds = metrics.histogram("kubeproxy_sync_proxy_rules_duration_seconds", "Time of one change of the rules.")
sync_failures = metrics.counter(
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "Transactions that nft refused."
)
synced_at = metrics.gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When the rules were last in step.")

# Called with the ports as they were and as they are now, after the kernel has them.
Ports = Mapping[str, ServicePort | None]
Listener = Callable[[Ports, Ports], None]


class Proxy:
    """Keeps the table in step with Services and EndpointSlices."""

    def __init__(
        self,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        nft: Nft,
        settings: Settings,
    ) -> None:
        self.services = services
        self.slices = slices
        self.nft = nft
        self.settings = settings
        # The node's own, for Services that prefer what is near.
        self.zone = ""
        self.table = Table(settings)
        self.is_written = False
        # Whether the last attempt to fill the table failed.
        self.refused = False
        self.dirty: set[str] = set()
        # Since when there is something that the rules do not have yet; monotonic.
        self.pending_since: float | None = None
        self.wake = asyncio.Event()
        # Held from a plan until the kernel has it: without it `applied` may be ahead by one transaction.
        self.writing = asyncio.Lock()
        self.keys_of_service: dict[str, tuple[str, ...]] = {}
        self.listeners: list[Listener] = []
        # What nft was told, while listeners hear of it.
        self.transaction = ""
        services.add_handler(self._service_changed)
        slices.add_handler(self._slice_changed)

    @property
    def applied(self) -> Ruleset | None:
        """What the kernel holds; None before the first write and after a refusal."""
        return Ruleset(self.settings, self.table.ports) if self.is_written else None

    def ports_of(self, service: str) -> Iterable[ServicePort]:
        """The ports that the table serves of one Service, by namespace/name."""
        return [self.table.ports[key] for key in self.keys_of_service.get(service, ()) if key in self.table.ports]

    def udp_ports(self) -> Iterable[ServicePort]:
        """Every UDP port that the table serves."""
        return [self.table.ports[key] for key in self.table.ports if key.endswith("/UDP")]

    async def run(self) -> None:
        """Sync for ever."""
        await self.services.synced.wait()
        await self.slices.synced.wait()
        pause = RETRY_SECONDS_FIRST
        while True:
            try:
                async with self.writing:
                    await self._sync()
                pause = RETRY_SECONDS_FIRST
            except NftError as error:
                sync_failures.inc()
                log.error("nft refused the rules; writing them anew", error=str(error), pause_seconds=pause)
                self.refused, self.is_written = not self.is_written, False
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
                continue
            await self.wake.wait()

    def set_zone(self, zone: str) -> None:
        """The node's zone became known or changed."""
        if zone != self.zone:
            self.zone = zone
            self._mark(self.services.lister.keys())

    async def _sync(self) -> None:
        self.wake.clear()
        began = time.monotonic()
        changed, self.dirty = self.dirty, set()
        before: dict[str, ServicePort | None] = {}
        after: Ports = {}
        if self.is_written:
            wanted: dict[str, ServicePort | None] = {}
            for service in changed:
                before |= {key: self.table.ports.get(key) for key in self.keys_of_service.pop(service, ())}
                wanted |= {port.key: port for port in self._ports(service)}
            after = dict.fromkeys(before) | wanted
            transaction = self.table.change(after)
        else:
            # What was refused once may be of another shape than ours: then it is replaced instead of filled.
            there = Names() if self.refused else await self.nft.names(TABLE)
            self.table = Table(self.settings)
            self.keys_of_service.clear()
            every = self.services.lister.keys()
            ports = (port for service in every for port in self._ports(service))
            transaction = (REPLACE if self.refused else "") + self.table.adopt(ports, there)
            after = self.table.ports
        if transaction:
            await self.nft.apply(transaction)
            sync_seconds.observe(time.monotonic() - began)
        self.transaction = transaction
        was_written = self.is_written
        self.is_written, self.refused = True, False
        self.pending_since = time.monotonic() if self.dirty else None
        synced_at.set_to_current_time()
        if after:
            for listener in self.listeners:
                listener(before, after)
        self.transaction = transaction = ""
        if not was_written:
            give_back()

    def _ports(self, service: str) -> list[ServicePort]:
        found = self.services.lister.by_key(service)
        if found is None:
            return []
        pieces = self.slices.lister.by_index("service", service)
        ports = service_ports(found, pieces, self.settings, self.zone)
        self.keys_of_service[service] = tuple(port.key for port in ports)
        return ports

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        changed = new or old
        assert changed is not None
        self._mark([changed.key])

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self._mark(key for piece in (old, new) if piece is not None for key in slice_service(piece))

    def _mark(self, services: Iterable[str]) -> None:
        self.dirty.update(services)
        if self.dirty and self.pending_since is None:
            self.pending_since = time.monotonic()
        self.wake.set()
