"""The arithmetic of rollouts: how many pods each ReplicaSet may have now. Upstream's rules, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.controller_manager.controllers.deployment.history import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    revision_of,
)
from services.controller_manager.intstr import scaled
from services.controller_manager.views.workloads import Deployment, ReplicaSet


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a rollout may go above and below the desired count."""

    surge: int
    unavailable: int


def bounds(deployment: Deployment) -> Bounds:
    """Surge rounds up, unavailable rounds down; both zero would never move, so then one pod may be missing."""
    spec = deployment.spec
    if spec.strategy.type != "RollingUpdate":
        return Bounds(0, 0)
    rolling = spec.strategy.rollingUpdate
    surge_spec = rolling.maxSurge if rolling and rolling.maxSurge is not None else "25%"
    unavailable_spec = rolling.maxUnavailable if rolling and rolling.maxUnavailable is not None else "25%"
    surge = scaled(surge_spec, spec.replicas, round_up=True)
    unavailable = scaled(unavailable_spec, spec.replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, spec.replicas))


def available(replica_set: ReplicaSet) -> int:
    """Available pods of a ReplicaSet that it will keep.

    Its own count is older than its size: of two available pods one is as good as gone once the size was set to one.
    """
    return min(replica_set.spec.replicas, int(replica_set.status.get("availableReplicas") or 0))


def by_age(replica_sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Oldest first."""
    return sorted(replica_sets, key=lambda rs: (rs.metadata.creationTimestamp, rs.metadata.name))


def by_revision(replica_sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Lowest revision first."""
    return sorted(replica_sets, key=lambda rs: (revision_of(rs.metadata), rs.metadata.creationTimestamp))


def new_size(deployment: Deployment, new_size_now: int, total: int) -> int:
    """What the new ReplicaSet may grow to, where all of them together ask for `total` pods."""
    desired = deployment.spec.replicas
    if new_size_now > desired:
        return desired
    if deployment.spec.strategy.type != "RollingUpdate":
        return desired
    allowed = desired + bounds(deployment).surge
    if total >= allowed:
        return new_size_now
    return new_size_now + min(allowed - total, desired - new_size_now)


def shrunk_old(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> dict[str, int]:
    """New sizes of those old ReplicaSets that can shrink now.

    First pods that serve nobody, then serving ones that can be spared.
    """
    sizes = {rs.metadata.uid: rs.spec.replicas for rs in old}
    min_available = deployment.spec.replicas - bounds(deployment).unavailable
    new_unavailable = new.spec.replicas - available(new)
    spare = sum(sizes.values()) + new.spec.replicas - min_available - new_unavailable
    if spare <= 0:
        return {}
    changed: dict[str, int] = {}
    for rs in by_age(old):
        size = sizes[rs.metadata.uid]
        cut = min(spare, size - available(rs))
        if spare > 0 and size > 0 and cut > 0:
            changed[rs.metadata.uid] = sizes[rs.metadata.uid] = size - cut
            spare -= cut
    spare = sum(available(rs) for rs in old) + available(new) - min_available
    for rs in by_age(old):
        if spare <= 0:
            break
        size = sizes[rs.metadata.uid]
        cut = min(size, spare)
        if cut > 0:
            changed[rs.metadata.uid] = sizes[rs.metadata.uid] = size - cut
            spare -= cut
    return changed


def proportional(deployment: Deployment, active: Sequence[ReplicaSet]) -> dict[str, int]:
    """Sizes after a scale in the middle of a rollout.

    The change is spread by size, so that the proportions of risk stay.
    """
    desired = deployment.spec.replicas
    surge = bounds(deployment).surge
    allowed = desired + surge if desired > 0 else 0
    to_add = allowed - sum(rs.spec.replicas for rs in active)
    newest_first = list(reversed(by_age(active)))
    ordered = sorted(newest_first if to_add > 0 else by_age(active), key=lambda rs: -rs.spec.replicas)
    sizes: dict[str, int] = {}
    added = 0
    for rs in ordered:
        change = _share(deployment, rs, to_add, added, desired + surge) if to_add else 0
        sizes[rs.metadata.uid] = rs.spec.replicas + change
        added += change
    if ordered and to_add:
        first = ordered[0].metadata.uid
        sizes[first] = max(0, sizes[first] + to_add - added)
    return sizes


def _share(deployment: Deployment, rs: ReplicaSet, to_add: int, added: int, max_replicas: int) -> int:
    if rs.spec.replicas == 0 or added == to_add:
        return 0
    if deployment.spec.replicas == 0:
        fraction = -rs.spec.replicas
    else:
        before = annotated(rs, MAX_REPLICAS) or int(deployment.status.get("replicas") or 0)
        if before == 0:
            return 0
        fraction = _round_half_away(rs.spec.replicas * max_replicas / before) - rs.spec.replicas
    allowed = to_add - added
    return min(fraction, allowed) if to_add > 0 else max(fraction, allowed)


def _round_half_away(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def annotated(rs: ReplicaSet, name: str) -> int | None:
    """A number that this controller left in an annotation."""
    text = rs.metadata.annotations.get(name, "")
    return int(text) if text.lstrip("-").isdigit() else None


def is_scaling(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> bool:
    """Whether the desired count has changed since the ReplicaSets were last sized."""
    return any(
        desired is not None and desired != deployment.spec.replicas
        for rs in replica_sets
        if rs.spec.replicas > 0 and (desired := annotated(rs, DESIRED_REPLICAS)) is not None
    )


def is_saturated(deployment: Deployment, new: ReplicaSet | None) -> bool:
    """Whether the new ReplicaSet alone is all that is desired, and available."""
    desired = deployment.spec.replicas
    return (
        new is not None
        and new.spec.replicas == desired
        and annotated(new, DESIRED_REPLICAS) == desired
        and available(new) == desired
    )
