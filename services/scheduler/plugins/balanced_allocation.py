"""NodeResourcesBalancedAllocation.

Prefer nodes whose resources would be used evenly, so that none runs out while another is idle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.scheduler.cluster_state import CPU, MEMORY, ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import MAX_SCORE, SKIP, Plugin, Rows
from services.scheduler.pod_info import PodInfo


class NodeResourcesBalancedAllocation(Plugin):
    """Arguments: `resources`. The score is 100 times one minus the standard deviation of the fractions in use."""

    local = True

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        resources = self.arguments.get("resources") or [{"name": "cpu"}, {"name": "memory"}]
        self.resources = [entry["name"] for entry in resources]

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        needs = [(state.resource(name), pod.requests.get(name, 0)) for name in self.resources]
        # A pod that asks for none of them can't change the balance.
        return needs if any(need for _, need in needs) else SKIP

    def score(self, data: list[tuple[int, int]], state: ClusterState, rows: Rows) -> Array:
        if [index for index, _ in data] == [CPU, MEMORY]:
            # The usual case in one go: two resources' standard deviation is half of their distance.
            needs = np.array([[data[0][1]], [data[1][1]]])
            shares = (state.requested[:2, rows] + needs) / np.maximum(state.allocatable[:2, rows], 1)
            np.minimum(shares, 1.0, out=shares)
            plain: Array = (MAX_SCORE - np.abs(shares[0] - shares[1]) * (MAX_SCORE / 2)).astype(np.int64)
            return plain
        fractions = []
        for index, need in data:
            capacity = state.allocatable[index, rows]
            used = state.requested[index, rows] + need
            fractions.append(np.minimum(used / np.maximum(capacity, 1), 1.0))
        deviation: Array = np.std(np.array(fractions), axis=0)
        return ((1 - deviation) * MAX_SCORE).astype(np.int64)
