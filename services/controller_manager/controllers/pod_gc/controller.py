"""Sweeps pods every twenty seconds."""

from __future__ import annotations

from datetime import datetime

from machinery.api import errors, kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.pod_gc import plan as planner
from services.controller_manager.reconciler import Reconciler

_SWEEP_SECONDS = 20.0
_SWEEP = "sweep"


class PodGarbageCollector(Reconciler):
    """pod-garbage-collector"""

    name = "pod-garbage-collector"
    workers = 1

    def watch(self) -> None:
        """Pods and nodes are read, and nothing is queued by their changes: this is a sweep."""
        self._missing_since: dict[str, datetime] = {}
        self.informers.of(kinds.POD)
        self.informers.of(kinds.NODE)
        self.add(_SWEEP)

    def keys(self) -> list[str]:
        """The one sweep."""
        return [_SWEEP]

    async def reconcile(self, key: str) -> Plan | None:
        """One sweep."""
        now = self.env.now()
        pods = self.lister(kinds.POD).list()
        nodes = self.lister(kinds.NODE).list()
        missing = planner.unknown_nodes(pods, nodes)
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        gone = set()
        for name, since in self._missing_since.items():
            waited = (now - since).total_seconds()
            if waited >= planner.QUARANTINE_SECONDS and not await self._exists(name):
                gone.add(name)
        plan = planner.plan(pods, nodes, gone, now, self.env.config.terminated_pod_threshold)
        plan.wake(_SWEEP_SECONDS)
        return plan

    async def _exists(self, node: str) -> bool:
        try:
            await self.env.client.get(kinds.NODE, node)
        except errors.NotFound:
            return False
        return True
