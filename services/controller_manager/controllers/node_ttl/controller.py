"""The annotation `node.alpha.kubernetes.io/ttl` of every node: seconds for which its kubelet may keep ConfigMaps and
Secrets without asking again. The larger the cluster, the longer."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager.actions import Patch, Plan
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.pod import Node

ANNOTATION = "node.alpha.kubernetes.io/ttl"

# (nodes from which on the step above is left downwards, nodes up to which the step holds, seconds). The ranges overlap,
# so that a cluster whose size wavers about a bound does not have all its nodes rewritten each time.
STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 2**31, 300))


def step_for(nodes: int, step: int) -> int:
    """Which of the STEPS holds for so many nodes, coming from `step`."""
    while nodes > STEPS[step][1]:
        step += 1
    while nodes < STEPS[step][0]:
        step -= 1
    return step


def plan(node: Node, seconds: int) -> Plan:
    """Annotate the node unless it says so already."""
    text = str(seconds)
    if node.metadata.deletionTimestamp is not None or node.metadata.annotations.get(ANNOTATION) == text:
        return Plan()
    patch = {"metadata": {"annotations": {ANNOTATION: text}}}
    return Plan([Patch(kinds.NODE, "", node.metadata.name, patch, uid=node.metadata.uid)])


class NodeTtlController(OfKind):
    """ttl-controller"""

    name = "ttl-controller"
    kind = kinds.NODE

    def watch(self) -> None:
        """Nodes: how many there are, and what each says."""
        self._step = 0
        self.on(kinds.NODE, self._on_node)

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None:
            step = step_for(len(self.lister(kinds.NODE)), self._step)
            if step != self._step:
                self._step = step
                for key in self.keys():
                    self.add(key)
        if new is not None and (old is None or old.metadata.annotations != new.metadata.annotations):
            self.add(new.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        node: Node | None = self.lister(kinds.NODE).by_key(key)
        return plan(node, STEPS[self._step][2]) if node is not None else None
