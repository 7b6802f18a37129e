"""Keeps the proxy in step with the API: changes wake it, it works out what is wanted, and has the proxy do it.

A change of endpoints costs that Service's backends only; a change of anything else a new table. Changes that come
together are taken together.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from machinery.api.service_views import EndpointSlice, Service, slice_service
from machinery.component import logs, metrics
from services.ingress import changes, render, routes
from services.ingress.api import Ingress
from services.ingress.changes import Running
from services.ingress.endpoints import endpoints_of
from services.ingress.proxy import Proxy, ProxyError
from services.ingress.render import Settings, Wanted
from services.ingress.table import Backend, Certificate, Endpoint, Table

log = logs.get("sync")

# Long enough for the slices of one rollout's step to come together, short beside what a person or a probe notices.
GATHER_SECONDS = 0.01
# Each reload leaves a worker behind for as long as it has connections: those that follow closely wait longer.
RELOAD_PAUSE_SECONDS_FIRST = 0.2
RELOAD_PAUSE_SECONDS_MAX = 15.0
RETRY_SECONDS_MAX = 15.0


@dataclass
class World:
    """What the controller sees, as functions over its informers."""

    # Ingresses of this controller's classes, the oldest first.
    ingresses: Callable[[], Sequence[Ingress]]
    service_of: Callable[[str], Service | None]
    slices_of: Callable[[str], Sequence[EndpointSlice]]
    certificate_of: Callable[[str], Certificate | None]
    clock: Callable[[], float] = time.time


@dataclass
class _ReloadPause:
    """When the next reload may be: at once after a quiet time, later and later in a storm."""

    pause: float = RELOAD_PAUSE_SECONDS_FIRST
    last: float = field(default=-1e9)

    def wait_seconds(self, now: float) -> float:
        return max(0.0, self.last + self.pause - now)

    def happened(self, now: float) -> None:
        is_storm = now - self.last < 3 * self.pause
        self.pause = min(self.pause * 2, RELOAD_PAUSE_SECONDS_MAX) if is_storm else RELOAD_PAUSE_SECONDS_FIRST
        self.last = now


class Sync:
    """`run` it in a TaskGroup. `table` is what is asked for now, `running` what the proxy has (None: not known)."""

    def __init__(self, world: World, proxy: Proxy, settings: Settings, default_certificate: str) -> None:
        self.world = world
        self.proxy = proxy
        self.settings = settings
        self.default_certificate = default_certificate
        self.table = Table()
        self.backends: dict[str, Backend] = {}
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self.running: Running | None = None
        self.error = "nothing was written yet"
        # Called after the table changed.
        self.listeners: list[Callable[[], None]] = []
        self._by_service: dict[str, list[Backend]] = {}
        self._rendered: Wanted | None = None
        self._wake = asyncio.Event()
        self._loaded = asyncio.Event()
        self._routes_changed = True
        self._services_changed: set[str] = set()
        self._reload_pause = _ReloadPause()
        self._reloads = metrics.counter("ingress_reloads_total", "Loads of the proxy by result.", ("result",))
        self._commands = metrics.counter("ingress_commands_total", "Commands given to the running proxy.")
        self._seconds = metrics.histogram("ingress_sync_duration_seconds", "From a change to the proxy having it.")
        self._routes = metrics.gauge("ingress_routes", "Routes by whether they are served.", ("served",))
        for result in ("success", "error"):
            self._reloads.labels(result)

    # --- what wakes it ------------------------------------------------------------------------------------------------

    def changed(self, _old: object, _new: object) -> None:
        """Handler for everything but slices."""
        self._routes_changed = True
        self._wake.set()

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Handler for slices."""
        keys = {key for piece in (old, new) if piece is not None for key in slice_service(piece)}
        if not keys.isdisjoint(self._by_service) or self._routes_changed:
            self._services_changed |= keys
            self._wake.set()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_proxy(), name="proxy's end")
            tasks.create_task(self._follow(), name="changes")

    async def _watch_proxy(self) -> None:
        while True:
            await self._loaded.wait()
            await self.proxy.wait_ended()
            log.warning("proxy ended; it is started again")
            self._loaded.clear()
            self.running, self.error = None, "the proxy has ended"
            self._wake.set()

    async def _follow(self) -> None:
        retry_seconds = 0.2
        while True:
            began = time.perf_counter()
            wait = await self._step()
            if wait is None:
                self._seconds.observe(time.perf_counter() - began)
                retry_seconds = 0.2
            elif wait < 0:
                wait, retry_seconds = retry_seconds, min(retry_seconds * 2, RETRY_SECONDS_MAX)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_SECONDS)

    async def _step(self) -> float | None:
        """Bring the proxy to what is wanted.

        None: it is; a time: look again then, a reload has to wait so long; below zero: it failed.
        """
        self._wake.clear()
        wanted = self._look()
        running = self.running
        if running is None:
            return await self._load(changes.fresh(wanted), "start")
        plan = changes.plan(running, wanted)
        wait = self._reload_pause.wait_seconds(time.monotonic())
        if plan.reload and wait <= 0:
            return await self._load(changes.reloaded(running, wanted), plan.reload)
        if plan.commands:
            try:
                await self.proxy.run(plan.commands)
            except ProxyError as error:
                # Nobody knows what it took; a reload makes it certain.
                log.warning("command failed; the proxy is loaded anew", error=str(error))
                return await self._load(changes.reloaded(running, wanted), "command failed")
            self._commands.inc(len(plan.commands))
        if self.running is running:  # else it ended meanwhile
            self.running = plan.then
        return wait if plan.reload else None

    async def _load(self, running: Running, why: str) -> float | None:
        try:
            await self.proxy.load(running)
        except ProxyError as error:
            self._reloads.labels("error").inc()
            if str(error) != self.error:
                log.error("proxy not loaded", reason=why, error=str(error))
            self.error = str(error)
            return -1.0
        self._reload_pause.happened(time.monotonic())
        self._reloads.labels("success").inc()
        log.info("proxy loaded", reason=why, backends=len(running.wanted.sections))
        self.running, self.error = running, ""
        self._loaded.set()
        return None

    def _look(self) -> Wanted:
        """Take what changed into the table and the endpoints; what is wanted now."""
        if self._routes_changed:
            self._routes_changed = False
            world = self.world
            self.table = routes.build(world.ingresses(), world.service_of, world.certificate_of, world.clock())
            self.backends = self.table.backends
            self._by_service = {}
            for backend in self.backends.values():
                self._by_service.setdefault(backend.service_key, []).append(backend)
            served = sum(1 for route in self.table.routes if not route.error)
            self._routes.labels("yes").set(served)
            self._routes.labels("no").set(len(self.table.routes) - served)
            self._services_changed = set(self._by_service)
            self._rendered = render.render(self.table, {}, self.settings, self.default_certificate)
            for listener in self.listeners:
                listener()
        for key in self._services_changed:
            slices = self.world.slices_of(key) if key in self._by_service else ()
            for backend in self._by_service.get(key, ()):
                self.endpoints[backend.name] = endpoints_of(backend, slices)
        self._services_changed.clear()
        for name in [name for name in self.endpoints if name not in self.backends]:
            del self.endpoints[name]
        assert self._rendered is not None
        return replace(self._rendered, endpoints={name: self.endpoints.get(name, ()) for name in self.backends})

    def live_endpoints(self, backend: str) -> tuple[Endpoint, ...]:
        """What the proxy has for a backend now."""
        if self.running is None:
            return ()
        return tuple(slot for slot in self.running.servers.get(backend, ()) if slot is not None)
