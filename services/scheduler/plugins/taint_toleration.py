"""TaintToleration: NoSchedule and NoExecute taints refuse pods that do not tolerate them; PreferNoSchedule taints
cost score.

Few distinct sets of taints exist in a cluster, so each set is judged once and looked up for all nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from machinery.api import taints as rules
from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array, Lookup
from services.scheduler.framework import ClusterEvent, Hint, Plugin, Rows, normalize
from services.scheduler.objects import Node, Taint, Toleration
from services.scheduler.pod_info import PodInfo

_REASONS_MAX = 63
"""Bits for distinct taints; what comes after shares the last one."""


def tolerates(tolerations: Sequence[Toleration] | None, taint: Taint) -> bool:
    """Whether one of the tolerations tolerates the taint."""
    return any(rules.tolerates(toleration, taint) for toleration in tolerations or ())


def untolerated(tolerations: Sequence[Toleration] | None, taints: Sequence[Taint]) -> Taint | None:
    """The first taint that keeps the pod off."""
    return next((t for t in taints if t.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, t)), None)


class _Data:
    """Verdicts of one pod's tolerations on each set of taints."""

    def __init__(self, pod: PodInfo, state: ClusterState) -> None:
        self.tolerations = pod.pod.spec.tolerations
        self.reasons: list[str] = []
        self.refused = Lookup(state.taints, self._refuse, 0, np.uint64)
        self.avoided = Lookup(state.taints, self._avoid, 0, np.int64)

    def _refuse(self, taints: tuple[Taint, ...]) -> int:
        taint = untolerated(self.tolerations, taints)
        if taint is None:
            return 0
        reason = f"node(s) had untolerated taint {{{taint.key}: {taint.value or ''}}}"
        if reason not in self.reasons and len(self.reasons) < _REASONS_MAX:
            self.reasons.append(reason)
        return 1 << (self.reasons.index(reason) if reason in self.reasons else _REASONS_MAX - 1)

    def _avoid(self, taints: tuple[Taint, ...]) -> int:
        return sum(1 for t in taints if t.effect == "PreferNoSchedule" and not tolerates(self.tolerations, t))


class TaintToleration(Plugin):
    """Taints of nodes against tolerations of pods."""

    local = True
    static = True

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {ClusterEvent("Node", "Add"): _bearable, ClusterEvent("Node", "Update"): _bearable}

    def prepare(self, pod: PodInfo, state: ClusterState) -> _Data:
        return _Data(pod, state)

    def filter(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        return data.refused(rows)

    def reasons(self, data: _Data, state: ClusterState) -> Sequence[str]:
        return data.reasons

    def remedy(self, data: _Data, state: ClusterState, row: int) -> str:
        taint = untolerated(data.tolerations, state.node(row).spec.taints or ())
        return f"fits on {state.name(row)} if taint {taint.key} is tolerated" if taint else ""

    def score(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        return data.avoided(rows)

    def normalize(self, data: _Data, scores: Array, feasible: Array) -> Array:
        return normalize(scores, feasible, reverse=True)


def _bearable(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    tolerations = pod.pod.spec.tolerations
    if new is None or untolerated(tolerations, new.spec.taints or ()) is not None:
        return False
    return old is None or untolerated(tolerations, old.spec.taints or ()) is not None
