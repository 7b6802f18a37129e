"""How many pods of a PodDisruptionBudget may be disrupted now. The apiserver's eviction spends what this allows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Emit,
    Plan,
    parse_rfc3339,
    status_patch,
    with_condition,
)
from services.controller_manager.intstr import scaled
from services.controller_manager.pods import is_ready
from services.controller_manager.views.cluster import PodDisruptionBudget
from services.controller_manager.views.pod import Pod

# An eviction that was allowed and whose pod lives on for so long did not happen.
_DISRUPTION_SECONDS_MAX = 120.0


class Unknown(Exception):
    """The number of pods that there should be cannot be known. The message says why."""


def plan(budget: PodDisruptionBudget, pods: Sequence[Pod], expected: int | Unknown, now: datetime) -> Plan:
    """The status for these matching pods, whose owners together want `expected` pods."""
    out = Plan()
    if not pods:
        out.actions.append(Emit(NORMAL, "NoPods", "No matching pods found"))
    try:
        counts = _counts(budget, pods, expected)
    except (Unknown, ValueError) as err:
        text = f"Failed to calculate the number of expected pods: {err}"
        out.actions.append(Emit(WARNING, "CalculateExpectedPodCountFailed", text))
        conditions = with_condition(
            budget.status.get("conditions") or [], "DisruptionAllowed", "False", "SyncFailed", str(err), now,
            observedGeneration=budget.metadata.generation,
        )  # fmt: skip
        # Nothing is allowed while it is not known what would be left.
        status = {**budget.status, "disruptionsAllowed": 0, "conditions": conditions}
        status["observedGeneration"] = budget.metadata.generation
        for field in ("currentHealthy", "desiredHealthy", "expectedPods"):
            status.setdefault(field, 0)
        out.actions += status_patch(kinds.POD_DISRUPTION_BUDGET, budget, status)
        return out
    if _by_owners(budget) and (alone := [pod.metadata.name for pod in pods if pod.metadata.controller is None]):
        text = (
            f"Pods that no controller owns are selected and not expected to be there ({', '.join(sorted(alone)[:5])}): "
            "an integer in .spec.minAvailable would account for them"
        )
        out.actions.append(Emit(WARNING, "UnmanagedPods", text))
    expected_pods, desired_healthy = counts
    disrupted, wake = _disrupted(budget, pods, now)
    healthy = sum(
        1
        for pod in pods
        if is_ready(pod) and pod.metadata.deletionTimestamp is None and pod.metadata.name not in disrupted
    )
    allowed = max(0, healthy - desired_healthy) if expected_pods > 0 else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    conditions = with_condition(
        budget.status.get("conditions") or [], "DisruptionAllowed", "True" if allowed else "False", reason, "", now,
        observedGeneration=budget.metadata.generation,
    )  # fmt: skip
    status = {
        "currentHealthy": healthy,
        "desiredHealthy": desired_healthy,
        "expectedPods": expected_pods,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget.metadata.generation,
        "conditions": conditions,
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    out.actions += status_patch(kinds.POD_DISRUPTION_BUDGET, budget, status)
    out.wake(wake)
    return out


def _by_owners(budget: PodDisruptionBudget) -> bool:
    """Whether the budget is judged by what the pods' owners want, and not by how many pods there are."""
    return budget.spec.maxUnavailable is not None or not isinstance(budget.spec.minAvailable, int)


def not_deleted(budget: PodDisruptionBudget, pods: Sequence[Pod], now: datetime) -> list[tuple[Pod, Emit]]:
    """Pods whose eviction was allowed and never happened, with what they are told."""
    kept, _ = _disrupted(budget, pods, now)
    given_up = {name for name, text in (budget.status.get("disruptedPods") or {}).items() if text} - kept.keys()
    text = f"Pod was expected by PDB {budget.metadata.key} to be deleted but it wasn't"
    return [
        (pod, Emit(WARNING, "NotDeleted", text))
        for pod in pods
        if pod.metadata.name in given_up and pod.metadata.deletionTimestamp is None
    ]


def _counts(budget: PodDisruptionBudget, pods: Sequence[Pod], expected: int | Unknown) -> tuple[int, int]:
    """(pods expected, pods that have to stay healthy)."""
    spec = budget.spec
    if not _by_owners(budget):
        assert isinstance(spec.minAvailable, int)
        return len(pods), spec.minAvailable
    if isinstance(expected, Unknown):
        raise expected
    if spec.maxUnavailable is not None:
        return expected, max(0, expected - scaled(spec.maxUnavailable, expected, round_up=True))
    if spec.minAvailable is not None:
        return expected, scaled(spec.minAvailable, expected, round_up=True)
    return expected, expected


def _disrupted(budget: PodDisruptionBudget, pods: Sequence[Pod], now: datetime) -> tuple[dict[str, Any], float | None]:
    """Evictions that were allowed and have not shown yet; and when the oldest of them is given up."""
    present = {pod.metadata.name for pod in pods if pod.metadata.deletionTimestamp is None}
    kept: dict[str, Any] = {}
    wake: float | None = None
    for name, text in (budget.status.get("disruptedPods") or {}).items():
        since = parse_rfc3339(text)
        if name not in present or since is None:
            continue
        left = (since + timedelta(seconds=_DISRUPTION_SECONDS_MAX) - now).total_seconds()
        if left > 0:
            kept[name] = text
            wake = left if wake is None else min(wake, left)
    return kept, wake
