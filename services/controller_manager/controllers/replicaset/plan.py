"""How a ReplicaSet (or ReplicationController: the same with a simpler selector) keeps its number of pods."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager import pods as podlib
from services.controller_manager import templates
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Create,
    Delete,
    Note,
    with_condition,
    without_condition,
)
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import ReplicaSet, ReplicationController

# No pass makes or removes more pods than this, so that one huge set does not keep a worker from the others.
BURST = 500

Replicated = ReplicaSet | ReplicationController


def scale(kind: Kind, owner: Replicated, pods: Sequence[Pod], siblings: Sequence[Pod], now: datetime) -> list[Action]:
    """Pods to create or to delete. `pods` are the owned ones; `siblings` all active pods of the same grandparent, which
    tell how crowded with our kin each node is."""
    if owner.metadata.deletionTimestamp is not None:
        return []
    active = [pod for pod in pods if podlib.is_active(pod)]
    missing = owner.spec.replicas - len(active)
    if missing > 0:
        return list(_creations(kind, owner, min(missing, BURST)))
    if missing < 0:
        return _deletions(owner, active, siblings, min(-missing, BURST), now)
    return []


def _creations(kind: Kind, owner: Replicated, count: int) -> list[Create]:
    success = Note(NORMAL, "SuccessfulCreate", "Created pod: {name}")
    failure = Note(WARNING, "FailedCreate", "Error creating: {error}")
    # The pods of one pass are equal, so that they can share one map: it is only read from here on.
    obj = templates.pod_from(templates.decode(owner.spec.template), kind, owner.metadata)
    return [Create(kinds.POD, obj, success, failure) for _ in range(count)]


def _deletions(
    owner: Replicated, active: Sequence[Pod], siblings: Sequence[Pod], count: int, now: datetime
) -> list[Action]:
    success = Note(NORMAL, "SuccessfulDelete", "Deleted pod: {name}")
    failure = Note(WARNING, "FailedDelete", "Error deleting: {error}")
    by_node: dict[str, int] = {}
    for pod in siblings:
        if pod.spec.nodeName and podlib.is_active(pod):
            by_node[pod.spec.nodeName] = by_node.get(pod.spec.nodeName, 0) + 1
    ranks = {pod.metadata.uid: by_node.get(pod.spec.nodeName, 0) for pod in active}
    victims = podlib.deletion_order(active, ranks, now)[:count]
    return [
        Delete(
            kinds.POD,
            pod.metadata.namespace,
            pod.metadata.name,
            uid=pod.metadata.uid,
            on_success=success,
            on_failure=failure,
        )
        for pod in victims
    ]


def status(owner: Replicated, pods: Sequence[Pod], failure: tuple[str, str] | None, now: datetime) -> dict[str, Any]:
    """The status for these owned pods. `failure` is (reason, message) of a create or delete that just failed."""
    active = [pod for pod in pods if podlib.is_active(pod)]
    labels = templates.decode(owner.spec.template).get("metadata", {}).get("labels") or {}
    ready = [pod for pod in active if podlib.is_ready(pod)]
    counts = {
        "fullyLabeledReplicas": sum(1 for pod in active if labels.items() <= pod.metadata.labels.items()),
        "readyReplicas": len(ready),
        "availableReplicas": sum(1 for pod in ready if podlib.is_available(pod, owner.spec.minReadySeconds, now)),
    }
    out: dict[str, Any] = {"replicas": len(active)} | {name: count for name, count in counts.items() if count}
    if isinstance(owner, ReplicaSet):
        out["terminatingReplicas"] = sum(1 for pod in pods if podlib.is_terminating(pod))
    if owner.metadata.generation:
        out["observedGeneration"] = owner.metadata.generation
    conditions = list(owner.status.get("conditions") or [])
    if failure is not None:
        conditions = with_condition(conditions, "ReplicaFailure", "True", *failure, now)
    else:
        conditions = without_condition(conditions, "ReplicaFailure")
    if conditions:
        out["conditions"] = conditions
    return out
