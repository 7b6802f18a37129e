"""Listens to nodes' heartbeats; taints nodes that are silent or say that they are unwell."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Patch, Plan
from services.controller_manager.controllers.node_lifecycle import plan as planner
from services.controller_manager.controllers.node_lifecycle import zones
from services.controller_manager.controllers.node_lifecycle.plan import Eviction
from services.controller_manager.informers import NODE
from services.controller_manager.reconciler import OfKind, reference
from services.controller_manager.views.meta import condition
from services.controller_manager.views.pod import Lease, Node

_LEASES = "kube-node-lease"


class NodeLifecycleController(OfKind):
    """node-lifecycle"""

    name = "node-lifecycle"
    component = "node-controller"
    kind = kinds.NODE
    workers = 2

    def watch(self) -> None:
        """Nodes and their Leases."""
        self._heartbeats: dict[str, planner.Heartbeat] = {}
        self._health = zones.Health()
        self._evicted_at: dict[str, datetime] = {}
        self._all_silent = False
        self._announced: set[str] = set()
        # Nodes that went and whose end is to be told, as references to them.
        self._removed: dict[str, dict[str, Any]] = {}
        self.on(kinds.NODE, self._on_node)
        self.on(kinds.LEASE, self._on_lease)
        self.informers.of(kinds.POD)

    def _on_lease(self, old: Lease | None, new: Lease | None) -> None:
        if new is None or new.metadata.namespace != _LEASES:
            return
        if old is None or old.spec.renewTime != new.spec.renewTime:
            self._heartbeats[new.metadata.name] = planner.Heartbeat(self.env.now(), heard=True)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        self._health.set((new or old).metadata.name, new)  # type: ignore[union-attr]
        if new is None:
            assert old is not None
            self._heartbeats.pop(old.metadata.name, None)
            self._announced.discard(old.metadata.name)
            self._removed[old.metadata.name] = reference(kinds.NODE, old.metadata)
            self.add(old.metadata.name)
            return
        name = new.metadata.name
        if old is None:
            self._heartbeats.setdefault(name, planner.Heartbeat(self.env.now(), heard=False))
        elif _last_heartbeat(old) != _last_heartbeat(new):
            self._heartbeats[name] = planner.Heartbeat(self.env.now(), heard=True)
        self.add(name)
        if old is not None and _ready(old) != _ready(new):
            # Whether pods may be evicted elsewhere depends on how many nodes are well.
            for other in self._health.unwell:
                self.add(other)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        node: Node | None = self.lister(kinds.NODE).by_key(key)
        if (removed := self._removed.pop(key, None)) is not None:
            await self.apply(key, removed, [planner.removed(key)])
        if node is None:
            return None
        now = self.env.now()
        self._heartbeats.setdefault(key, planner.Heartbeat(now, heard=False))
        eviction, wait = self._may_evict(node, now)
        heartbeat = self._heartbeats[key]
        pods = self.lister(kinds.POD).by_index(NODE, key)
        out = planner.plan(node, pods, heartbeat, eviction, now)
        if wait is not None:
            out.wake(wait)
        if key not in self._announced:
            self._announced.add(key)
            out.actions.insert(0, planner.registered(node))
        if any(isinstance(action, Patch) and "NoExecute" in str(action.patch) for action in out.actions):
            self._evicted_at[zones.zone(node)] = now
        await self._tell_pods(key, out)
        return out

    async def _tell_pods(self, key: str, out: Plan) -> None:
        for action in out.actions:
            if isinstance(action, Patch) and action.kind is kinds.POD:
                pod = self.lister(kinds.POD).get(action.namespace, action.name)
                if pod is not None:
                    await self.apply(key, reference(kinds.POD, pod.metadata), [planner.POD_EVENT])

    def _may_evict(self, node: Node, now: datetime) -> tuple[Eviction, float | None]:
        """Whether this node may get the taints that evict, and if only the pace forbids it, how long."""
        pace = self._health.eviction_pace()
        self._notice_outage(pace is None, now)
        if pace is None:
            return Eviction.REVOKED, None
        silent = (now - self._heartbeats[node.metadata.name].seen).total_seconds() > planner.GRACE_SECONDS
        if _ready(node) == "True" and not silent:
            return Eviction.HELD, None
        zone = zones.zone(node)
        if zone not in pace:
            return Eviction.HELD, None
        last = self._evicted_at.get(zone)
        wait = (last + timedelta(seconds=pace[zone]) - now).total_seconds() if last is not None else 0.0
        return (Eviction.ALLOWED, None) if wait <= 0 else (Eviction.HELD, wait)

    def _notice_outage(self, all_silent: bool, now: datetime) -> None:
        """When the last node falls silent, or the first one is back, all of them are judged anew; in the second case
        from now on, because nobody could have been heard until then."""
        if all_silent == self._all_silent:
            return
        self._all_silent = all_silent
        for name, heartbeat in self._heartbeats.items():
            if not all_silent:
                self._heartbeats[name] = planner.Heartbeat(now, heartbeat.heard)
            self.add(name)


def _ready(node: Node) -> str:
    entry = condition(node.status.conditions, "Ready")
    return entry.status if entry else ""


def _last_heartbeat(node: Node) -> tuple[datetime | None, ...]:
    return tuple(entry.lastHeartbeatTime for entry in node.status.conditions)
