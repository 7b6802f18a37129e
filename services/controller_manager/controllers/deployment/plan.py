"""What a Deployment's state asks for next: ReplicaSets created, sized, forgotten; and its status.

One pass does one step. Whatever it writes comes back as a change that queues the next pass, so a rollout is a walk of
small steps each of which holds the bounds by itself: all ReplicaSets together ask for no more than desired + maxSurge
pods, and no serving pod is taken away while fewer than desired - maxUnavailable others are available.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from machinery.api import kinds
from services.controller_manager import templates
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Create,
    Delete,
    Emit,
    Note,
    Patch,
    Plan,
    merge_diff,
    mismatched,
    status_patch,
)
from services.controller_manager.controllers.deployment import history, rollout, status
from services.controller_manager.views.workloads import Deployment, ReplicaSet


class Observed(msgspec.Struct, frozen=True):
    """A Deployment, the ReplicaSets that it owns, and by ReplicaSet uid how many of its pods have not ended."""

    deployment: Deployment
    replica_sets: Sequence[ReplicaSet]
    running_pods: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Sets:
    new: ReplicaSet | None
    old: list[ReplicaSet]

    @property
    def all(self) -> list[ReplicaSet]:
        return [*self.old, self.new] if self.new else self.old

    @property
    def total(self) -> int:
        return sum(rs.spec.replicas for rs in self.all)


def split(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> _Sets:
    """The ReplicaSet of the present template (the oldest, should there be two) and all others."""
    wanted = templates.without_hash(templates.decode(deployment.spec.template))
    for candidate in rollout.by_age(replica_sets):
        if templates.without_hash(templates.decode(candidate.spec.template)) == wanted:
            return _Sets(candidate, [rs for rs in replica_sets if rs is not candidate])
    return _Sets(None, list(replica_sets))


def plan(observed: Observed, now: datetime) -> Plan:
    """The next step."""
    deployment = observed.deployment
    out = Plan()
    if deployment.spec.selector.empty:
        message = "This deployment is selecting all pods. A non-empty selector is required."
        out.actions.append(Emit(WARNING, "SelectingAll", message))
        if deployment.status.get("observedGeneration", 0) < deployment.metadata.generation:
            new_status = {**deployment.status, "observedGeneration": deployment.metadata.generation}
            out.actions += status_patch(kinds.DEPLOYMENT, deployment, new_status)
        return out
    if wrong := templates.mismatch(deployment.spec.selector, deployment.spec.template):
        return mismatched(kinds.DEPLOYMENT, deployment, wrong, now)
    sets = split(deployment, observed.replica_sets)
    if deployment.metadata.deletionTimestamp is not None:
        new_status = status.counted(deployment, sets.new, sets.all, now)
    else:
        # What is decided below already sees that the rollout was paused or resumed.
        marked = msgspec.structs.replace(deployment, status=status.pausing(deployment, now))
        new_status = _step(out, msgspec.structs.replace(observed, deployment=marked), sets, now)
    out.actions += status_patch(kinds.DEPLOYMENT, deployment, new_status)
    out.wake(status.deadline_in(deployment, new_status, now))
    return out


def _step(out: Plan, observed: Observed, sets: _Sets, now: datetime) -> dict[str, Any]:
    """Add the step's writes to `out`; the status that it leads to."""
    deployment = observed.deployment
    if deployment.spec.paused or rollout.is_scaling(deployment, sets.all):
        return _sync(out, deployment, sets, now)
    if deployment.spec.strategy.type == "Recreate":
        return _recreate(out, observed, sets, now)
    return _rolling(out, deployment, sets, now)


def creation_failed(deployment: Deployment, name: str, error: str, now: datetime) -> list[Action]:
    """The status that says why no ReplicaSet could be made."""
    return status_patch(kinds.DEPLOYMENT, deployment, status.creation_failed(deployment, name, error, now))


def hash_collision(deployment: Deployment) -> list[Action]:
    """Another object has the name that the template's hash gave: count it, which gives another hash."""
    count = int(deployment.status.get("collisionCount") or 0) + 1
    return status_patch(kinds.DEPLOYMENT, deployment, {**deployment.status, "collisionCount": count})


# --- strategies -------------------------------------------------------------------------------------------------------


def _rolling(out: Plan, deployment: Deployment, sets: _Sets, now: datetime) -> dict[str, Any]:
    if sets.new is None:
        return _create_new(out, deployment, sets, now)
    out.actions += _record_revision(deployment, sets)
    size = rollout.new_size(deployment, sets.new.spec.replicas, sets.total)
    out.actions += _resize(deployment, sets.new, size)
    if size == sets.new.spec.replicas:
        changes = rollout.shrunk_old(deployment, sets.new, sets.old) if sets.old else {}
        for rs in sets.old:
            if rs.metadata.uid in changes:
                out.actions += _resize(deployment, rs, changes[rs.metadata.uid])
    return _judge(out, deployment, sets, now)


def _recreate(out: Plan, observed: Observed, sets: _Sets, now: datetime) -> dict[str, Any]:
    deployment = observed.deployment
    active = [rs for rs in sets.old if rs.spec.replicas > 0]
    for rs in active:
        out.actions += _resize(deployment, rs, 0)
    if active or any(observed.running_pods.get(rs.metadata.uid) for rs in sets.old):
        return _judge(out, deployment, sets, now)
    if sets.new is None:
        return _create_new(out, deployment, sets, now)
    out.actions += _record_revision(deployment, sets)
    out.actions += _resize(deployment, sets.new, deployment.spec.replicas)
    return _judge(out, deployment, sets, now)


def _sync(out: Plan, deployment: Deployment, sets: _Sets, now: datetime) -> dict[str, Any]:
    """Paused, or in the middle of a change of scale: sizes follow the scale, and no rollout goes on."""
    if sets.new:
        out.actions += _record_revision(deployment, sets)
    active = [rs for rs in sets.all if rs.spec.replicas > 0]
    only = active[0] if len(active) == 1 else None
    if not active:
        only = sets.new or next(reversed(rollout.by_age(sets.old)), None)
    if only is not None:
        out.actions += _resize(deployment, only, deployment.spec.replicas)
    elif rollout.is_saturated(deployment, sets.new):
        for rs in sets.old:
            if rs.spec.replicas > 0:
                out.actions += _resize(deployment, rs, 0)
    elif deployment.spec.strategy.type == "RollingUpdate":
        sizes = rollout.proportional(deployment, active)
        for rs in active:
            out.actions += _resize(deployment, rs, sizes[rs.metadata.uid])
    if deployment.spec.paused:
        out.actions += _forget(deployment, sets)
    return status.counted(deployment, sets.new, sets.all, now)


def _judge(out: Plan, deployment: Deployment, sets: _Sets, now: datetime) -> dict[str, Any]:
    new_status = status.judged(deployment, sets.new, sets.all, now)
    if status.is_complete(deployment, new_status):
        out.actions += _forget(deployment, sets)
    return new_status


# --- steps ------------------------------------------------------------------------------------------------------------


def _next_revision(sets: _Sets) -> int:
    return max((history.revision_of(rs.metadata) for rs in sets.old), default=0) + 1


def new_replica_set(deployment: Deployment, sets: _Sets) -> dict[str, Any]:
    """The ReplicaSet of the present template, named for the template's hash."""
    template = templates.decode(deployment.spec.template)
    collisions = deployment.status.get("collisionCount")
    hashed = templates.template_hash(template, collisions)
    labels = {**(template.get("metadata", {}).get("labels") or {}), templates.POD_TEMPLATE_HASH: hashed}
    template["metadata"] = {**template.get("metadata", {}), "labels": labels}
    selector = deployment.spec.selector
    out_selector: dict[str, Any] = {"matchLabels": {**selector.matchLabels, templates.POD_TEMPLATE_HASH: hashed}}
    if selector.matchExpressions:
        out_selector["matchExpressions"] = [
            {"key": entry.key, "operator": entry.operator, **({"values": list(entry.values)} if entry.values else {})}
            for entry in selector.matchExpressions
        ]
    size = rollout.new_size(deployment, 0, sets.total)
    desired = deployment.spec.replicas
    marks = history.size_annotations(desired, desired + rollout.bounds(deployment).surge)
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment.metadata.name}-{hashed}",
            "namespace": deployment.metadata.namespace,
            "labels": labels,
            "annotations": history.replica_set_annotations(deployment, {}, _next_revision(sets)) | marks,
            "ownerReferences": [templates.owner_reference(kinds.DEPLOYMENT, deployment.metadata)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": deployment.spec.minReadySeconds,
            "selector": out_selector,
            "template": template,
        },
    }


def _create_new(out: Plan, deployment: Deployment, sets: _Sets, now: datetime) -> dict[str, Any]:
    obj = new_replica_set(deployment, sets)
    name, size = obj["metadata"]["name"], obj["spec"]["replicas"]
    note = Note(NORMAL, "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}") if size else None
    failure = Note(WARNING, "ReplicaSetCreateError", f'Failed to create new replica set "{name}": {{error}}')
    out.actions.append(Create(kinds.REPLICA_SET, obj, on_success=note, on_failure=failure))
    out.actions += _mark_revision(deployment, obj["metadata"]["annotations"][history.REVISION])
    return status.created(deployment, name, sets.all, now)


def _record_revision(deployment: Deployment, sets: _Sets) -> list[Action]:
    """Number the new ReplicaSet above all others (a rollback makes an old one new again) and repeat the number on the
    Deployment.
    """
    new = sets.new
    assert new is not None
    wanted = history.replica_set_annotations(deployment, new.metadata.annotations, _next_revision(sets))
    patch: dict[str, Any] = {}
    if changed := merge_diff(new.metadata.annotations, wanted):
        patch["metadata"] = {"annotations": changed}
    if new.spec.minReadySeconds != deployment.spec.minReadySeconds:
        patch["spec"] = {"minReadySeconds": deployment.spec.minReadySeconds}
    actions: list[Action] = []
    if patch:
        meta = new.metadata
        actions.append(Patch(kinds.REPLICA_SET, meta.namespace, meta.name, patch, uid=meta.uid))
    return actions + _mark_revision(deployment, wanted[history.REVISION])


def _mark_revision(deployment: Deployment, revision: str) -> list[Action]:
    meta = deployment.metadata
    if meta.annotations.get(history.REVISION) == revision:
        return []
    patch = {"metadata": {"annotations": {history.REVISION: revision}}}
    return [Patch(kinds.DEPLOYMENT, meta.namespace, meta.name, patch, uid=meta.uid)]


def _resize(deployment: Deployment, rs: ReplicaSet, size: int) -> list[Action]:
    """Bring a ReplicaSet's size and the marks of what it was sized for up to date."""
    desired = deployment.spec.replicas
    marks = history.size_annotations(desired, desired + rollout.bounds(deployment).surge)
    marks = {name: value for name, value in marks.items() if rs.metadata.annotations.get(name) != value}
    if size == rs.spec.replicas and (size == 0 or not marks):
        return []
    patch: dict[str, Any] = {}
    if marks:
        patch["metadata"] = {"annotations": marks}
    note = None
    if size != rs.spec.replicas:
        patch["spec"] = {"replicas": size}
        direction = "up" if size > rs.spec.replicas else "down"
        text = f"Scaled {direction} replica set {rs.metadata.name} from {rs.spec.replicas} to {size}"
        note = Note(NORMAL, "ScalingReplicaSet", text)
    meta = rs.metadata
    return [
        Patch(
            kinds.REPLICA_SET, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision, on_success=note
        )
    ]


def _forget(deployment: Deployment, sets: _Sets) -> list[Action]:
    """Delete the oldest ReplicaSets beyond the history limit; only such as have no pods left."""
    limit = deployment.spec.revisionHistoryLimit
    if limit is None:
        return []
    alive = rollout.by_revision([rs for rs in sets.old if rs.metadata.deletionTimestamp is None])
    actions: list[Action] = []
    for rs in alive[: max(0, len(alive) - limit)]:
        counted = rs.status.get("observedGeneration", 0) >= rs.metadata.generation
        if rs.spec.replicas == 0 and not rs.status.get("replicas") and counted:
            actions.append(Delete(kinds.REPLICA_SET, rs.metadata.namespace, rs.metadata.name, uid=rs.metadata.uid))
    return actions
