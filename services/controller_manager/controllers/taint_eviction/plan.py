"""When a pod has to leave a node because of its NoExecute taints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from machinery.api import kinds
from machinery.api.taints import tolerates
from services.controller_manager.actions import NORMAL, Delete, Note, Patch, Plan
from services.controller_manager.pods import disruption_conditions
from services.controller_manager.views.pod import Pod, Taint


def leave_at(pod: Pod, taints: Sequence[Taint], first_seen: datetime) -> datetime | None:
    """When the pod has to go.

    None if it may stay. `first_seen` stands in for taints that do not say when they were added.
    """
    seconds: list[int] = []
    since = first_seen
    added = [taint.timeAdded for taint in taints if taint.timeAdded is not None]
    if added:
        since = min(added)
    for taint in taints:
        matching = [toleration for toleration in pod.spec.tolerations if tolerates(toleration, taint)]
        if not matching:
            return first_seen
        seconds += [max(0, t.tolerationSeconds) for t in matching if t.tolerationSeconds is not None]
    return since + timedelta(seconds=min(seconds)) if seconds else None


def plan(pod: Pod, taints: Sequence[Taint], first_seen: datetime, now: datetime) -> Plan:
    """Evict the pod, wait, or leave it alone. `taints` are its node's NoExecute taints."""
    out = Plan()
    if not taints or pod.metadata.deletionTimestamp is not None:
        return out
    moment = leave_at(pod, taints, first_seen)
    if moment is None:
        return out
    if moment > now:
        out.wake((moment - now).total_seconds())
        return out
    meta = pod.metadata
    message = "Taint manager: deleting due to NoExecute taint"
    conditions = disruption_conditions(pod, "DeletionByTaintManager", message, now)
    note = Note(NORMAL, "TaintManagerEviction", f"Marking for deletion Pod {meta.namespace}/{meta.name}")
    out.actions = [
        Patch(
            kinds.POD,
            meta.namespace,
            meta.name,
            {"status": {"conditions": conditions}},
            "status",
            uid=meta.uid,
            revision=meta.revision,
        ),
        Delete(kinds.POD, meta.namespace, meta.name, uid=meta.uid, on_success=note),
    ]
    return out
