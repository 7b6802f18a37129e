"""A plugin for the scheduler in one file: nodes belong to teams.

    python -m services.scheduler --config scheduler.yaml --plugin-files examples/scheduler_plugin.py

A pod with the annotation `example.com/team` goes only to nodes whose label `example.com/team` lists that team ("a.b"
lists a and b), and prefers nodes that list no other. `filter` and `score` see all nodes at once: each distinct label is
judged once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array, Lookup
from services.scheduler.framework import MAX_SCORE, SKIP, ClusterEvent, Hint, Plugin, Rows
from services.scheduler.pod_info import PodInfo

KEY = "example.com/team"


class TeamNodes(Plugin):
    """Arguments (pluginConfig): `key`, another label and annotation than example.com/team."""

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        self.key = self.arguments.get("key", KEY)

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {ClusterEvent("Node", "Add"): None, ClusterEvent("Node", "Update"): None}

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        team = (pod.pod.metadata.annotations or {}).get(self.key)
        return (team, state.column(self.key)) if team else SKIP

    def filter(self, data: Any, state: ClusterState, rows: Rows) -> Array:
        team, column = data
        return Lookup(column, lambda label: int(team not in label.split(".")), 1, np.uint64)(rows)

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (f"node(s) did not belong to team {data[0]}",)

    def remedy(self, data: Any, state: ClusterState, row: int) -> str:
        return f"fits on {state.name(row)} if its label {self.key} lists {data[0]}"

    def score(self, data: Any, state: ClusterState, rows: Rows) -> Array:
        return Lookup(data[1], lambda label: MAX_SCORE // len(label.split(".")), 0, np.int64)(rows)
