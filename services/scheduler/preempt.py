"""Preemption: whom to evict so that a more important pod fits. A plan, made on the state and leaving it as it was.

On a node, the victims are found by taking off everything less important than the pod, and putting back, most
important first and pods that a PodDisruptionBudget protects before others, what leaves it room. Among nodes the one
is chosen whose victims are missed least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from machinery.api.selectors import LabelSelector
from services.scheduler.cluster_state import ClusterState
from services.scheduler.diagnosis import Diagnosis, available, reasons_of
from services.scheduler.pod_info import PodInfo
from services.scheduler.profile import Profile

NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"

# How many nodes are looked at closely: a tenth, at least a hundred, as upstream does.
CANDIDATES_MIN = 100
CANDIDATES_SHARE = 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Budget(NamedTuple):
    """A PodDisruptionBudget: whom it protects, and how many of them may go now."""

    namespace: str
    selector: LabelSelector
    allowed: int

    def covers(self, pod: PodInfo) -> bool:
        return pod.namespace == self.namespace and self.selector.matches(pod.labels)


class Candidate(NamedTuple):
    """A node, whom to evict there, and how many of those a budget protects."""

    row: int
    victims: tuple[PodInfo, ...]
    violations: int


def plan(
    pod: PodInfo, state: ClusterState, profile: Profile, diagnosis: Diagnosis, budgets: Sequence[Budget],
    random: np.random.Generator,
) -> Candidate | None:  # fmt: skip
    """The best way to make room, or None; then `diagnosis.preemption` says why not. Raises PluginError."""
    diagnosis.victims_leaving = _victims_leaving(pod, state)
    why = ""
    if pod.pod.spec.preemptionPolicy == "Never":
        why = "not eligible due to preemptionPolicy=Never."
    elif diagnosis.victims_leaving:
        why = "not eligible due to a terminating pod on the nominated node."
    if why:
        diagnosis.preemption = f"preemption: {why}"
        return None
    reasons: Counter[str] = Counter()
    rows = np.flatnonzero(diagnosis.candidates)
    if len(rows) < state.node_count:
        reasons[NOT_HELPFUL] = state.node_count - len(rows)
    limit = max(CANDIDATES_MIN, state.node_count // CANDIDATES_SHARE)
    candidates: list[Candidate] = []
    for row in random.permutation(rows) if len(rows) > limit else rows:
        found = _on_row(pod, state, profile, int(row), budgets, reasons)
        if found is not None:
            candidates.append(found)
            if len(candidates) >= limit:
                break
    if not candidates:
        diagnosis.preemption = f"preemption: {available(state.node_count, reasons)}"
        return None
    return min(candidates, key=_cost)


def _victims_leaving(pod: PodInfo, state: ClusterState) -> bool:
    nominated = pod.pod.status.nominatedNodeName
    row = state.row_of.get(nominated) if nominated else None
    return row is not None and any(p.terminating and p.priority < pod.priority for p in state.pods_of(row))


def _on_row(
    pod: PodInfo, state: ClusterState, profile: Profile, row: int, budgets: Sequence[Budget], reasons: Counter[str]
) -> Candidate | None:
    lesser = [other for other in state.pods_of(row) if other.priority < pod.priority]
    if not lesser:
        reasons[NO_VICTIMS] += 1
        return None
    removed: dict[str, PodInfo] = {}

    def fits() -> bool:
        return bool(profile.judge(pod, state, score=False).feasible[row])

    try:
        for other in lesser:
            state.lift(other.uid)
            removed[other.uid] = other
        if not fits():
            _say_why(pod, state, profile, row, reasons)
            return None
        protected, free = _by_budget(sorted(lesser, key=_importance), budgets)
        victims: list[PodInfo] = []
        violations = 0
        for group, counts in ((protected, True), (free, False)):
            for other in group:
                state.put_back(other, row)
                if fits():
                    del removed[other.uid]
                else:
                    state.lift(other.uid)
                    victims.append(other)
                    violations += counts
        return Candidate(row, tuple(victims), violations) if victims else None
    finally:
        for other in removed.values():
            state.put_back(other, row)


def _say_why(pod: PodInfo, state: ClusterState, profile: Profile, row: int, reasons: Counter[str]) -> None:
    for plugin, data, bits in profile.verdicts(pod, state):
        if bits[row]:
            reasons.update(reasons_of(plugin, data, int(bits[row]), state))


def _importance(pod: PodInfo) -> tuple[int, datetime]:
    """Most important first: higher priority, then longer running."""
    return (-pod.priority, _started(pod))


def _started(pod: PodInfo) -> datetime:
    return pod.pod.status.startTime or pod.pod.metadata.creationTimestamp or _EPOCH


def _by_budget(pods: Sequence[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """(those whose eviction would violate a budget, the others), each in the order given."""
    left = [budget.allowed for budget in budgets]
    protected: list[PodInfo] = []
    free: list[PodInfo] = []
    for pod in pods:
        violates = False
        for number, budget in enumerate(budgets):
            if budget.covers(pod):
                left[number] -= 1
                violates = violates or left[number] < 0
        (protected if violates else free).append(pod)
    return protected, free


def _cost(candidate: Candidate) -> tuple[int, int, int, int, float, int]:
    """Upstream's order.

    Budgets, then the most important victim, their sum, their number, and who has run the shortest.
    """
    priorities = [victim.priority for victim in candidate.victims]
    highest = max(priorities)
    # Priorities may be negative: shifted by the lowest there is, so that more victims always cost more.
    total = sum(priority + 2**31 for priority in priorities)
    earliest = min(_started(victim) for victim in candidate.victims if victim.priority == highest)
    return (candidate.violations, highest, total, len(priorities), -earliest.timestamp(), candidate.row)
