"""What a plan may ask for. A plan decides and returns these; `apply.Applier` carries them out.

Actions run in order. Those of one sort that stand next to each other travel together in a Batch. An action that fails
stops the ones behind it (the next reconcile starts from what is then true), except among its own neighbours. Where
that is not enough, because the next write counts on the one before, a Patch goes `alone`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from machinery.api.kinds import Kind
from services.controller_manager.views.meta import Condition

NORMAL = "Normal"
WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Note:
    """An event about the object that is being reconciled. `{name}` and `{error}` stand for what came of the action."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object.

    `exists_ok`: someone having created it before is as good (only for names that say what is in them).
    """

    kind: Kind
    obj: dict[str, Any]
    on_success: Note | None = None
    on_failure: Note | None = None
    exists_ok: bool = False
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch. `uid` and `revision` refuse it (Conflict) on another object or another state of it.

    `alone`: it shares no Batch with its neighbours, because it depends on those before it, or those behind on it.
    """

    kind: Kind
    namespace: str
    name: str
    patch: dict[str, Any]
    subresource: str = ""
    uid: str = ""
    revision: int = 0
    on_success: Note | None = None
    on_failure: Note | None = None
    missing_ok: bool = True
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object; that it is gone already is as good. `uid` protects a new object of the same name."""

    kind: Kind
    namespace: str
    name: str
    uid: str = ""
    revision: int = 0
    propagation: str = ""
    grace_period_seconds: int | None = None
    on_success: Note | None = None
    on_failure: Note | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """Record an event about the object that is being reconciled, and do nothing else."""

    type: str
    reason: str
    message: str


Mutation = Create | Patch | Delete
Action = Mutation | Emit


@dataclass(slots=True)
class Plan:
    """What to do now, and when at the latest to look again (seconds; None: when something changes)."""

    actions: list[Action] = field(default_factory=list)
    requeue_after: float | None = None

    def wake(self, seconds: float | None) -> None:
        """Look again after so many seconds, or sooner if that was planned already."""
        if seconds is not None:
            seconds = max(seconds, 0.0)
            self.requeue_after = seconds if self.requeue_after is None else min(self.requeue_after, seconds)


def rfc3339(moment: datetime) -> str:
    """A time as metav1.Time writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str | None) -> datetime | None:
    """A time that metav1.Time wrote; None for an absent one."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def merge_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) that turns `old` into `new`; empty if they are equal. Lists are atomic."""
    patch: dict[str, Any] = {name: None for name in old if name not in new and old[name] is not None}
    for name, value in new.items():
        if name not in old:
            if value is not None:
                patch[name] = value
        elif isinstance(value, dict) and isinstance(old[name], dict):
            if inner := merge_diff(old[name], value):
                patch[name] = inner
        elif value != old[name]:
            patch[name] = value
    return patch


def status_patch(kind: Kind, obj: Any, status: dict[str, Any], *, alone: bool = False) -> list[Action]:
    """The write that makes `obj.status` equal `status`: none if it is so already. `alone` as for a Patch.

    It carries the revision that was observed, so that a decision on old state is refused and made anew.
    """
    diff = merge_diff(obj.status, status)
    if not diff:
        return []
    meta = obj.metadata
    return [
        Patch(
            kind,
            meta.namespace,
            meta.name,
            {"status": diff},
            subresource="status",
            uid=meta.uid,
            revision=meta.revision,
            alone=alone,
        )
    ]


# --- conditions in a status that is a plain map -----------------------------------------------------------------------


def find_condition(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The condition of that type."""
    return next((entry for entry in status.get("conditions") or () if entry.get("type") == kind), None)


def is_true(status: dict[str, Any], kind: str) -> bool:
    """Whether the condition of that type is there and true."""
    entry = find_condition(status, kind)
    return entry is not None and entry.get("status") == "True"


def condition_json(entry: Condition) -> dict[str, Any]:
    """A decoded condition as the API writes it, for a list that is written whole."""
    out: dict[str, Any] = {"type": entry.type, "status": entry.status}
    for field_name in ("reason", "message"):
        if text := getattr(entry, field_name):
            out[field_name] = text
    for field_name in ("lastHeartbeatTime", "lastProbeTime", "lastUpdateTime", "lastTransitionTime"):
        if (moment := getattr(entry, field_name)) is not None:
            out[field_name] = rfc3339(moment)
    if entry.observedGeneration is not None:
        out["observedGeneration"] = entry.observedGeneration
    return out


def with_condition(
    conditions: Sequence[dict[str, Any]], kind: str, status: str, reason: str, message: str, now: datetime, **extra: Any
) -> list[dict[str, Any]]:
    """The conditions with this one set.

    `lastTransitionTime` moves only with `status`; nothing moves if nothing changes.
    """
    old = next((entry for entry in conditions if entry.get("type") == kind), None)
    entry = {"type": kind, "status": status, "reason": reason, "message": message, **extra}
    same = old is not None and old.get("status") == status
    entry["lastTransitionTime"] = old["lastTransitionTime"] if same and old else rfc3339(now)
    if old is None:
        return [*conditions, entry]
    return [entry if other is old else other for other in conditions]


def without_condition(conditions: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The conditions without that type."""
    return [entry for entry in conditions if entry.get("type") != kind]


def mismatched(kind: Kind, owner: Any, why: str, now: datetime) -> Plan:
    """An owner whose pods would never be its own: say so, and make none."""
    conditions = with_condition(
        owner.status.get("conditions") or [], "ReplicaFailure", "True", "SelectorMismatch", why, now
    )
    status = {**owner.status, "conditions": conditions}
    return Plan([Emit(WARNING, "SelectorMismatch", why), *status_patch(kind, owner, status)])
