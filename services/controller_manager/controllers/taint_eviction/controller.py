"""Watches pods and the NoExecute taints of their nodes."""

from __future__ import annotations

from datetime import datetime

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.taint_eviction import plan as planner
from services.controller_manager.informers import NODE
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.pod import Node, Pod, Taint


class TaintEvictionController(OfKind):
    """taint-eviction-controller"""

    name = "taint-eviction-controller"
    kind = kinds.POD
    workers = 4

    def watch(self) -> None:
        """Nodes whose taints change, and pods that come to a node."""
        # By node: when its present NoExecute taints were seen first. Taints that people add do not say when.
        self._since: dict[str, tuple[tuple[Taint, ...], datetime]] = {}
        self.on(kinds.NODE, self._on_node)
        self.on(kinds.POD, self._on_pod)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self._since.pop(old.metadata.name, None)
            return
        taints = evicting(new)
        known = self._since.get(new.metadata.name)
        if known is not None and known[0] == taints:
            return
        if taints:
            self._since[new.metadata.name] = (taints, self.env.now())
        else:
            self._since.pop(new.metadata.name, None)
        if taints or known:
            for pod in self.lister(kinds.POD).by_index(NODE, new.metadata.name):
                self.add(pod.metadata.key)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.spec.nodeName not in self._since:
            return
        if old is None or old.spec.nodeName != new.spec.nodeName or old.spec.tolerations != new.spec.tolerations:
            self.add(new.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        pod: Pod | None = self.lister(kinds.POD).by_key(key)
        if pod is None or pod.spec.nodeName not in self._since:
            return None
        taints, since = self._since[pod.spec.nodeName]
        return planner.plan(pod, taints, since, self.env.now())


def evicting(node: Node) -> tuple[Taint, ...]:
    """The taints that pods have to tolerate to stay."""
    return tuple(taint for taint in node.spec.taints if taint.effect == "NoExecute")
