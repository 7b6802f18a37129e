"""NodeName: a pod that names its node goes there or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import MISSING, Array
from services.scheduler.framework import SKIP, Plugin, Rows, no_reason
from services.scheduler.pod_info import PodInfo

REASON = "node(s) didn't match the requested node name"


class NodeName(Plugin):
    """spec.nodeName."""

    local = True
    static = True

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        wanted = pod.pod.spec.nodeName
        return state.row_of.get(wanted, MISSING) if wanted else SKIP

    def filter(self, data: int, state: ClusterState, rows: Rows) -> Array:
        out = no_reason(rows, state)
        out[:] = state.row_numbers(rows) != data
        return out

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (REASON,)
