"""One decision: the best node for a pod, over all nodes at once. Pure; nothing is assumed or written here."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.diagnosis import Diagnosis, diagnose
from services.scheduler.pod_info import PodInfo
from services.scheduler.profile import Profile

_LOWEST = np.iinfo(np.int64).min


class Decision:
    """A row, or why there is none."""

    __slots__ = ("diagnosis", "feasible_nodes", "row")

    def __init__(self, row: int | None, diagnosis: Diagnosis | None, feasible_nodes: int) -> None:
        self.row = row
        self.diagnosis = diagnosis
        self.feasible_nodes = feasible_nodes


def decide(
    pod: PodInfo, state: ClusterState, profile: Profile, random: np.random.Generator, reserved: Any = None
) -> Decision:
    """The feasible row with the highest score, by lot among equals. Raises PluginError.

    `reserved` is a bool a row: where room is kept for pods of higher priority that others are being evicted for.
    """
    judgement = profile.judge(pod, state)
    feasible, ranks = judgement.feasible, judgement.ranks
    if reserved is not None and ranks is not None:
        feasible = feasible & ~reserved
        ranks = np.where(feasible, ranks, _LOWEST)
    count = int(np.count_nonzero(feasible))
    if not count:
        return Decision(None, diagnose(pod, state, profile), 0)
    nominated = pod.pod.status.nominatedNodeName
    if nominated:
        row = state.row_of.get(nominated)
        if row is not None and row < len(feasible) and feasible[row]:
            return Decision(row, None, count)
    assert ranks is not None
    best = np.flatnonzero(ranks == ranks.max())
    row = int(best[0]) if len(best) == 1 else int(best[int(random.random() * len(best))])
    return Decision(row, None, count)
