"""Status conditions: find one, set one, as k8s.io/apimachinery's meta.SetStatusCondition does.

Works on models and on dicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from machinery.api import objects


def _get(condition: Any, field: str) -> Any:
    return condition.get(field) if isinstance(condition, dict) else getattr(condition, field)


def _set(condition: Any, field: str, value: Any) -> None:
    if isinstance(condition, dict):
        condition[field] = objects.format_time(value) if isinstance(value, datetime) else value
    elif (
        field in condition.__struct_fields__
    ):  # Not every kind's condition has every field: NodeCondition has no observedGeneration.
        setattr(condition, field, value)


def find_condition(conditions: Iterable[Any] | None, type: str) -> Any:
    """The condition of this type, or None."""
    return next((condition for condition in conditions or () if _get(condition, "type") == type), None)


def is_condition(conditions: Iterable[Any] | None, type: str, status: str = "True") -> bool:
    """Whether there is a condition of this type with this status."""
    condition = find_condition(conditions, type)
    return condition is not None and _get(condition, "status") == status


def set_condition(
    conditions: list[Any],
    type: str,
    status: str,
    reason: str,
    message: str,
    now: datetime,
    *,
    model: type[msgspec.Struct] | None = None,
    observed_generation: int | None = None,
) -> bool:
    """Add the condition or bring it up to date, in place; whether anything changed.

    `lastTransitionTime` moves only when `status` does. `model` is the class of a new condition
    (`core_v1.PodCondition`); without it the class of the present ones, or a dict.
    """
    condition = find_condition(conditions, type)
    added = condition is None
    if added:
        condition = _new(conditions, type, status, model)
        conditions.append(condition)
    changed = added
    if added or _get(condition, "status") != status:
        _set(condition, "status", status)
        _set(condition, "lastTransitionTime", now)
        changed = True
    for field, value in (("reason", reason), ("message", message)):
        if (_get(condition, field) or "") != value:
            _set(condition, field, value)
            changed = True
    if observed_generation is not None and _get(condition, "observedGeneration") != observed_generation:
        _set(condition, "observedGeneration", observed_generation)
        changed = True
    return changed


def _new(conditions: list[Any], type: str, status: str, model: Any) -> Any:
    if model is None:
        model = conditions[0].__class__ if conditions else dict
    required: dict[str, Any] = {"type": type, "status": status}
    if model is not dict:
        # meta_v1.Condition requires all of its fields; the caller sets them right after.
        placeholder = {"lastTransitionTime": datetime.min.replace(tzinfo=UTC), "reason": "", "message": ""}
        names = [f.name for f in msgspec.structs.fields(model) if f.required and f.name in placeholder]
        required |= {name: placeholder[name] for name in names}
    return model(**required)


def remove_condition(conditions: list[Any], type: str) -> bool:
    """Remove the condition of this type, in place; whether there was one."""
    kept = [condition for condition in conditions if _get(condition, "type") != type]
    removed = len(kept) != len(conditions)
    conditions[:] = kept
    return removed
