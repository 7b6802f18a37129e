"""What /livez and /readyz judge, by the names that upstream gives to what is the same here.

A post-start hook is well once its work has been done, and for good; the others look at the state as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from services.apiserver import codec
from services.apiserver.crd.definitions import DEFINITIONS, is_true
from services.apiserver.flow.upkeep import LEVELS
from services.apiserver.rest.health import Check
from services.apiserver.watch_cache import WatchCache
from storage.errors import StoreError

if TYPE_CHECKING:
    from services.apiserver.bootstrap import Bootstrap
    from services.apiserver.service import Core

ANSWER_SECONDS_MAX = 2.0
"""How long the store may take to answer; upstream's --etcd-healthcheck-timeout."""
KNOWN_SECONDS = 1.0
"""For how long what the store said is not asked again: anybody may ask for these checks."""


def of(core: Core, bootstrap: Bootstrap) -> tuple[Mapping[str, Check], Mapping[str, Check]]:
    """The checks of liveness, and those that only readiness has besides."""
    store = StoreCheck(core.cache)

    def hook(name: str, done: Callable[[], bool]) -> tuple[str, Check]:
        return f"poststarthook/{name}", _once(done, "not finished")

    def step(name: str) -> tuple[str, Check]:
        return hook(name, lambda: name in bootstrap.done)

    def levels_followed() -> bool:
        return core.flow.has_levels(entry.name for entry in core.cache.of(LEVELS).listed(""))

    registrations, upkeep = core.registrations, core.flow_upkeep.reconciler
    live: dict[str, Check] = dict(
        [
            ("etcd", store.answers),
            hook("priority-and-fairness-config-consumer", levels_followed),
            hook("start-apiextensions-controllers", lambda: core.definitions.running),
            hook("crd-informer-synced", lambda: _definitions_served(core)),
            step("start-system-namespaces-controller"),
            step("start-cluster-authentication-info-controller"),
            step("start-kubernetes-service-cidr-controller"),
            step("rbac/bootstrap-roles"),
            step("scheduling/bootstrap-system-priority-classes"),
            hook("priority-and-fairness-config-producer", lambda: upkeep.done_once),
            step("bootstrap-controller"),
            hook("apiservice-registration-controller", lambda: registrations.reconciler.done_once),
            hook("apiservice-status-local-available-controller", registrations.all_told),
            ("autoregister-completion", _once(registrations.complete, "APIServices are missing")),
        ]
    )
    return live, {"etcd-readiness": store.answers, "informer-sync": store.caught_up}


def _once(well: Callable[[], bool], otherwise: str) -> Check:
    """Well from when it was so first: a definition that comes later is no reason to send requests elsewhere until it
    has its APIService, and nobody decodes all there are for everybody who asks."""
    seen = False

    async def check() -> str:
        nonlocal seen
        seen = seen or well()
        return "" if seen else otherwise

    return check


def _definitions_served(core: Core) -> bool:
    """Whether every custom resource that is established is served."""
    established = (codec.decode(entry.value) for entry in core.cache.of(DEFINITIONS).listed(""))
    return all(
        core.registry.by_storage(f"{one['spec']['names']['plural']}.{one['spec']['group']}") is not None
        for one in established
        if is_true(one, "Established")
    )


class StoreCheck:
    """Asks the store, for all who want to know at once."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._asking: asyncio.Task[tuple[int, str]] | None = None
        self._asked_at = 0.0

    async def answers(self) -> str:
        """Whether the store answers."""
        return (await self._ask())[1]

    async def caught_up(self) -> str:
        """Whether the cache holds what the store had when it was asked."""
        newest, wrong = await self._ask()
        if not wrong and self._cache.revision < newest:
            try:
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    await self._cache.wait_revision(newest, timeout=None)
            except TimeoutError:
                return f"the watch cache is at revision {self._cache.revision}, the store at {newest}"
        return wrong

    async def _ask(self) -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        if self._asking is None or (self._asking.done() and loop.time() > self._asked_at + KNOWN_SECONDS):
            self._asked_at = loop.time()
            self._asking = loop.create_task(self._revision(), name="ask the store how it is")
        # Who goes does not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def _revision(self) -> tuple[int, str]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await self._cache.store.revision(), ""
        except TimeoutError:
            return 0, f"the store did not answer within {ANSWER_SECONDS_MAX:g} s"
        except StoreError as err:
            return 0, f"the store does not answer: {err}"
