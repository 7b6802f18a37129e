"""NodeUnschedulable: a cordoned node takes only pods that tolerate it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import SKIP, ClusterEvent, Hint, Plugin, Rows
from services.scheduler.objects import Node, Taint
from services.scheduler.plugins.taint_toleration import tolerates
from services.scheduler.pod_info import PodInfo

REASON = "node(s) were unschedulable"
TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class NodeUnschedulable(Plugin):
    """spec.unschedulable of nodes."""

    local = True
    static = True

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {ClusterEvent("Node", "Add"): _schedulable, ClusterEvent("Node", "Update"): _schedulable}

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        return SKIP if tolerates(pod.pod.spec.tolerations, TAINT) else None

    def filter(self, data: Any, state: ClusterState, rows: Rows) -> Array:
        return state.unschedulable[rows].astype(np.uint64)

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (REASON,)

    def remedy(self, data: Any, state: ClusterState, row: int) -> str:
        return f"fits on {state.name(row)} if the node is uncordoned"


def _schedulable(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    return new is not None and not new.spec.unschedulable and (old is None or bool(old.spec.unschedulable))
