"""A Deployment's status: the counts, and the conditions by which `kubectl rollout status` knows where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from services.controller_manager.actions import find_condition, parse_rfc3339, rfc3339, without_condition
from services.controller_manager.controllers.deployment import rollout
from services.controller_manager.views.workloads import Deployment, ReplicaSet

_NO_DEADLINE = 2**31 - 1


def counted(
    deployment: Deployment, new: ReplicaSet | None, every: Sequence[ReplicaSet], now: datetime
) -> dict[str, Any]:
    """The counts and the Available condition. Zero counts are absent, as upstream writes them."""

    def total(field: str, sets: Sequence[ReplicaSet] = every) -> int:
        return sum(int(rs.status.get(field) or 0) for rs in sets)

    available = total("availableReplicas")
    asked_for = sum(rs.spec.replicas for rs in every)
    counts = {
        "observedGeneration": deployment.metadata.generation,
        "replicas": total("replicas"),
        "updatedReplicas": total("replicas", [new] if new else []),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, asked_for - available),
        "terminatingReplicas": total("terminatingReplicas"),
        "collisionCount": deployment.status.get("collisionCount"),
    }
    out: dict[str, Any] = {name: value for name, value in counts.items() if value}
    if counts["terminatingReplicas"] == 0:
        out["terminatingReplicas"] = 0
    enough = available >= deployment.spec.replicas - rollout.bounds(deployment).unavailable
    out["conditions"] = _set(
        deployment.status.get("conditions") or [],
        "Available",
        "True" if enough else "False",
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability." if enough else "Deployment does not have minimum availability.",
        now,
    )
    return out


def judged(
    deployment: Deployment, new: ReplicaSet | None, every: Sequence[ReplicaSet], now: datetime
) -> dict[str, Any]:
    """The counts and all conditions, in the middle or at the end of a rollout."""
    out = counted(deployment, new, every, now)
    conditions = out["conditions"]
    subject = f'ReplicaSet "{new.metadata.name}"' if new else f'Deployment "{deployment.metadata.name}"'
    if not has_deadline(deployment):
        conditions = without_condition(conditions, "Progressing")
    else:
        current = find_condition(deployment.status, "Progressing")
        known_complete = (
            out.get("replicas", 0) == out.get("updatedReplicas", 0)
            and current is not None
            and current["reason"] == "NewReplicaSetAvailable"
        )
        if current is None and new is not None:
            message = f'Found new replica set "{new.metadata.name}"'
            conditions = _set(conditions, "Progressing", "True", "FoundNewReplicaSet", message, now)
            current = find_condition({"conditions": conditions}, "Progressing")
        if not known_complete:
            if is_complete(deployment, out):
                message = f"{subject} has successfully progressed."
                conditions = _set(conditions, "Progressing", "True", "NewReplicaSetAvailable", message, now)
            elif _has_progressed(deployment.status, out):
                message = f"{subject} is progressing."
                conditions = _progress(conditions, "ReplicaSetUpdated", message, now)
            elif _has_timed_out(deployment, current, out, now):
                message = f"{subject} has timed out progressing."
                conditions = _set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message, now)
    out["conditions"] = _replica_failure(conditions, new, every)
    return out


def created(deployment: Deployment, name: str, every: Sequence[ReplicaSet], now: datetime) -> dict[str, Any]:
    """The status once a new ReplicaSet was made."""
    out = counted(deployment, None, every, now)
    if has_deadline(deployment):
        message = f'Created new replica set "{name}"'
        out["conditions"] = _progress(out["conditions"], "NewReplicaSetCreated", message, now)
    return out


def creation_failed(deployment: Deployment, name: str, error: str, now: datetime) -> dict[str, Any]:
    """The status once making a ReplicaSet failed."""
    if not has_deadline(deployment):
        return dict(deployment.status)
    conditions = deployment.status.get("conditions") or []
    message = f'Failed to create new replica set "{name}": {error}'
    conditions = _set(conditions, "Progressing", "False", "ReplicaSetCreateError", message, now)
    return {**deployment.status, "conditions": conditions}


def pausing(deployment: Deployment, now: datetime) -> dict[str, Any]:
    """The present status, with a note that the rollout was paused or resumed: the deadline does not run meanwhile."""
    current = find_condition(deployment.status, "Progressing")
    if not has_deadline(deployment) or (current is not None and current["reason"] == "ProgressDeadlineExceeded"):
        return deployment.status
    was_paused = current is not None and current["reason"] == "DeploymentPaused"
    conditions = deployment.status.get("conditions") or []
    if deployment.spec.paused and not was_paused:
        conditions = _set(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
    elif not deployment.spec.paused and was_paused:
        conditions = _set(conditions, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    else:
        return deployment.status
    return {**deployment.status, "conditions": conditions}


def has_deadline(deployment: Deployment) -> bool:
    """Whether progress is watched over at all."""
    seconds = deployment.spec.progressDeadlineSeconds
    return seconds is not None and seconds != _NO_DEADLINE


def is_complete(deployment: Deployment, out: dict[str, Any]) -> bool:
    """Whether every desired pod is of the new template and available, and no other pod is left."""
    desired = deployment.spec.replicas
    return (
        all(out.get(field, 0) == desired for field in ("updatedReplicas", "replicas", "availableReplicas"))
        and out.get("observedGeneration", 0) >= deployment.metadata.generation
    )


def deadline_in(deployment: Deployment, out: dict[str, Any], now: datetime) -> float | None:
    """Seconds until lack of progress has to be said; None if nothing is in progress."""
    current = find_condition(out, "Progressing")
    if not has_deadline(deployment) or current is None or is_complete(deployment, out):
        return None
    # One that was complete before is late for nothing, however many of its pods are gone now.
    if current["reason"] in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable"):
        return None
    since = parse_rfc3339(current.get("lastUpdateTime"))
    if since is None:
        return None
    # Times are in whole seconds, so the deadline has surely passed one second later.
    return (since + timedelta(seconds=deployment.spec.progressDeadlineSeconds or 0) - now).total_seconds() + 1


def _has_progressed(old: dict[str, Any], new: dict[str, Any]) -> bool:
    def count(status: dict[str, Any], field: str) -> int:
        return int(status.get(field) or 0)

    def outdated(status: dict[str, Any]) -> int:
        return count(status, "replicas") - count(status, "updatedReplicas")

    grew = any(count(new, f) > count(old, f) for f in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    return grew or outdated(new) < outdated(old)


def _has_timed_out(deployment: Deployment, current: dict[str, Any] | None, out: dict[str, Any], now: datetime) -> bool:
    if current is None or current["reason"] == "NewReplicaSetAvailable":
        return False
    if current["reason"] == "ProgressDeadlineExceeded":
        return True
    since = parse_rfc3339(current.get("lastUpdateTime"))
    return since is not None and since + timedelta(seconds=deployment.spec.progressDeadlineSeconds or 0) < now


def _replica_failure(
    conditions: list[dict[str, Any]], new: ReplicaSet | None, every: Sequence[ReplicaSet]
) -> list[dict[str, Any]]:
    """Repeat a ReplicaSet's failure to make or remove pods: the new one's first."""
    for rs in ([new] if new else []) + [rs for rs in every if rs is not new]:
        failure = find_condition(rs.status, "ReplicaFailure")
        if failure is not None:
            entry = {
                "type": "ReplicaFailure",
                "status": failure["status"],
                "reason": failure.get("reason", ""),
                "message": failure.get("message", ""),
                "lastUpdateTime": failure.get("lastTransitionTime"),
                "lastTransitionTime": failure.get("lastTransitionTime"),
            }
            return [*without_condition(conditions, "ReplicaFailure"), entry]
    return without_condition(conditions, "ReplicaFailure")


def _set(
    conditions: list[dict[str, Any]], kind: str, status: str, reason: str, message: str, now: datetime
) -> list[dict[str, Any]]:
    """Set a condition unless status and reason are what they were: then it stays as it is, with its times."""
    old = find_condition({"conditions": conditions}, kind)
    if old is not None and old["status"] == status and old["reason"] == reason:
        return conditions
    return _replace(conditions, kind, status, reason, message, now, old)


def _progress(conditions: list[dict[str, Any]], reason: str, message: str, now: datetime) -> list[dict[str, Any]]:
    """Say that something moved just now, even if the last thing said was the same: the deadline starts anew."""
    old = find_condition({"conditions": conditions}, "Progressing")
    return _replace(conditions, "Progressing", "True", reason, message, now, old)


def _replace(
    conditions: list[dict[str, Any]],
    kind: str,
    status: str,
    reason: str,
    message: str,
    now: datetime,
    old: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    moment = rfc3339(now)
    entry = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": moment,
        "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == status else moment,
    }
    return [*without_condition(conditions, kind), entry]
