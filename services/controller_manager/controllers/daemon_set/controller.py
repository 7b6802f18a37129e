"""Watches DaemonSets, their pods and revisions, and nodes."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.daemon_set import plan as planner
from services.controller_manager.history_owner import HistoryOwner
from services.controller_manager.views.pod import Node, Pod
from services.controller_manager.views.workloads import DaemonSet


class DaemonSetController(HistoryOwner):
    """daemonset"""

    name = "daemonset"
    kind = kinds.DAEMON_SET

    def watch(self) -> None:
        """DaemonSets, their pods and revisions, and what decides about a node."""
        self.watch_owned()
        self.on(kinds.NODE, self._on_node)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if old is not None and new is not None and _shape(old) == _shape(new):
            return
        for daemon_set in self.lister(kinds.DAEMON_SET):
            self.add(daemon_set.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        daemon_set: DaemonSet | None = self.lister(kinds.DAEMON_SET).by_key(key)
        if daemon_set is None:
            return None
        pods: list[Pod] = []
        revisions: list[Any] = []
        if not daemon_set.spec.selector.empty:
            pods = await self.owned(key, daemon_set, kinds.POD)
            revisions = await self.owned(key, daemon_set, kinds.CONTROLLER_REVISION)
        return planner.plan(daemon_set, self.lister(kinds.NODE).list(), pods, revisions, self.env.now())


def _shape(node: Node) -> tuple[object, ...]:
    """All of a node that placement looks at."""
    taints = tuple((taint.key, taint.value, taint.effect) for taint in node.spec.taints)
    return node.metadata.labels, taints, node.spec.unschedulable
