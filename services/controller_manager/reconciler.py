"""The base of every controller.

Its queue, its writes, and the rule that it never plans on a cache older than its own writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from machinery.api.errors import NotFound
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.client.controller import Controller, Result
from machinery.client.events import EventRecorder
from machinery.client.informer import Lister
from machinery.component import logs
from services.controller_manager.actions import Action, Plan
from services.controller_manager.apply import Applier, Freshness, Outcome
from services.controller_manager.config import ControllerManagerConfig
from services.controller_manager.informers import Informers, view_decoder
from services.controller_manager.ownership import Claims

# A stale key comes back with the change it waits for. This is the net below that: a write that changed nothing brings
# no change.
STALE_RETRY_SECONDS = 0.25


def utc_now() -> datetime:
    """The clock of a real process."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Environment:
    """What controllers are made of. `client` is fenced: its writes fail once leadership has moved."""

    config: ControllerManagerConfig
    client: ApiClient
    informers: Informers
    recorder: Callable[[str], EventRecorder]
    now: Callable[[], datetime] = utc_now


class Reconciler(ABC):
    """One controller. Subclasses subscribe in `watch` and decide, by their plan, in `reconcile`."""

    name: ClassVar[str]
    # Under which name its events are recorded, where upstream's differs from "NAME-controller".
    component: ClassVar[str] = ""
    workers: ClassVar[int] = 2

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.informers = env.informers
        self.log = logs.get("controller", controller=self.name)
        self.controller = Controller(self.name, self._reconcile, workers=self.workers)
        self.freshness = Freshness(env.informers)
        component = self.component or f"{self.name.removesuffix('-controller')}-controller"
        self._applier = Applier(env.client, env.recorder(component), self.freshness)

    # --- for subclasses -----------------------------------------------------------------------------------------------

    @abstractmethod
    def watch(self) -> None:
        """Say which informers are needed, and which changes queue which keys."""

    @abstractmethod
    async def reconcile(self, key: str) -> Plan | None:
        """Bring the object nearer to what is wanted. A returned plan is carried out; None: nothing (more) to do."""

    async def run(self) -> None:
        """Work for ever. A controller with a rhythm of its own adds it here."""
        await self.controller.run()

    def keys(self) -> list[str]:
        """Every key that this controller cares for: what a resync queues."""
        return []

    # --- ready made ---------------------------------------------------------------------------------------------------

    def lister(self, kind: Kind) -> Lister[Any]:
        """The objects of a kind."""
        return self.informers.lister(kind)

    def on(self, kind: Kind, handler: Callable[[Any, Any], None]) -> None:
        """Call `handler(old, new)` on every change of a kind."""
        self.informers.of(kind).add_handler(handler)

    def on_own(self, kind: Kind) -> None:
        """Queue each changed object of the kind itself."""
        self.on(kind, self.controller.enqueue)

    def add(self, key: str) -> None:
        """Queue a key."""
        self.controller.add(key)

    async def apply(self, key: str, subject: dict[str, Any] | None, actions: Sequence[Action]) -> Outcome:
        """Carry out actions; the outcome's `check()` raises what failed."""
        if not actions:
            return Outcome()
        return await self._applier.run(key, subject, actions)

    async def still_exists(self, kind: Kind, meta: Any) -> bool:
        """Ask the apiserver itself whether the object is there and stays: before it adopts, a cache is not enough."""
        try:
            live = await self.env.client.get(kind, meta.name, meta.namespace)
        except NotFound:
            return False
        return bool(live.metadata.uid == meta.uid and live.metadata.deletionTimestamp is None)

    async def lives(self, kind: Kind, namespace: str, name: str, uid: str) -> bool:
        """Ask the apiserver itself whether that very object is there, deleted or not: before what cannot be undone."""
        try:
            live = await self.env.client.get(kind, name, namespace)
        except NotFound:
            return False
        return bool(live.metadata.uid == uid)

    async def listed(self, kind: Kind, namespace: str = "") -> list[Any]:
        """The objects of a kind as the apiserver itself has them, as views: before what cannot be undone."""
        return (await self.env.client.list(kind, namespace, decode=view_decoder(kind))).items

    async def claimed(self, key: str, kind: Kind, meta: Any, claims: Claims[Any]) -> list[Any]:
        """Carry out adoptions and releases.

        The objects that are owned now. Adoption first asks whether the owner still exists.
        """
        if claims.adopts and not await self.still_exists(kind, meta):
            return [obj for obj in claims.owned if obj.metadata.controller is not None]
        (await self.apply(key, None, claims.actions)).check()
        return claims.owned

    def subject(self, key: str) -> dict[str, Any] | None:
        """The object that events about this key are about."""
        return None

    async def _reconcile(self, key: str) -> Result | None:
        if self.freshness.is_stale(key):
            return Result(STALE_RETRY_SECONDS)
        subject = self.subject(key)
        plan = await self.reconcile(key)
        if plan is None:
            return None
        (await self.apply(key, subject, plan.actions)).check()
        return Result(plan.requeue_after) if plan.requeue_after is not None else None


class OfKind(Reconciler):
    """A controller of one kind, whose keys are that kind's objects."""

    kind: ClassVar[Kind]

    def keys(self) -> list[str]:
        """Every object of the kind."""
        return self.lister(self.kind).keys()

    def subject(self, key: str) -> dict[str, Any] | None:
        """A reference to the object."""
        obj = self.lister(self.kind).by_key(key)
        return reference(self.kind, obj.metadata) if obj is not None else None


def reference(kind: Kind, meta: Any) -> dict[str, Any]:
    """An ObjectReference, as events carry it."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resourceVersion,
    }
