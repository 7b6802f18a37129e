"""What a DeviceTaintRule's status says of the evictions that it causes. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from machinery.api import kinds
from machinery.api.device_taints import NO_EXECUTE
from services.controller_manager.actions import Patch, Plan, rfc3339
from services.controller_manager.views.devices import DeviceTaintRule
from services.controller_manager.views.meta import Condition, condition

CONDITION = "EvictionInProgress"
UPDATE_SECONDS_MIN = 10.0
"""Between two changes of one rule's status, so that an eviction of thousands does not cost as many writes."""


class Extent(NamedTuple):
    """How much a rule concerns. `pods` are those that wait for their eviction, or would if the effect were NoExecute;
    `evicted` those that were since this controller started."""

    pods: int = 0
    namespaces: int = 0
    published_devices: int = 0
    allocated_devices: int = 0
    evicted: int = 0


def wait_seconds(rule: DeviceTaintRule, now: datetime) -> float:
    """How long the status is left as it is; 0: it may be written."""
    said = _said(rule)
    if said is None or said.lastTransitionTime is None or said.observedGeneration != rule.metadata.generation:
        return 0.0
    return max(0.0, UPDATE_SECONDS_MIN - (now - said.lastTransitionTime).total_seconds())


def is_final(rule: DeviceTaintRule) -> bool:
    """Whether the status was worked out once and for all: what an effect would do is told only once."""
    said = _said(rule)
    return (
        said is not None
        and said.observedGeneration == rule.metadata.generation
        and rule.spec.taint.effect != NO_EXECUTE
    )


def plan(rule: DeviceTaintRule, extent: Extent, now: datetime) -> Plan:
    """Write the condition if it says something new; look again while pods are left to be evicted."""
    status, reason, message = _words(rule.spec.taint.effect, extent)
    said = _said(rule)
    out = Plan()
    if rule.spec.taint.effect == NO_EXECUTE and extent.pods:
        out.wake(UPDATE_SECONDS_MIN)
    new = (status, reason, message, rule.metadata.generation)
    if said is not None and (said.status, said.reason, said.message, said.observedGeneration) == new:
        return out
    entry: dict[str, Any] = {
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": rule.metadata.generation,
        # Unlike elsewhere it moves with every change: it says how old the numbers are.
        "lastTransitionTime": rfc3339(now),
    }
    meta = rule.metadata
    body = {"status": {"conditions": [entry]}}
    out.actions = [Patch(kinds.DEVICE_TAINT_RULE, "", meta.name, body, "status", uid=meta.uid, revision=meta.revision)]
    return out


def _said(rule: DeviceTaintRule) -> Condition | None:
    return condition(rule.status.conditions, CONDITION)


def _words(effect: str, extent: Extent) -> tuple[str, str, str]:
    """(status, reason, message)"""
    pods, spaces = _count(extent.pods, "pod"), _count(extent.namespaces, "namespace", "different namespaces")
    status, message = "False", ""
    if effect == NO_EXECUTE:
        reason = "Completed" if extent.evicted else "NotStarted"
        if extent.pods:
            status, reason = "True", "PodsPendingEviction"
            message = f"{pods} need{'s' if extent.pods == 1 else ''} to be evicted in {spaces}."
    elif effect == "None":
        reason = "NoEffect"
        message = (
            f"{_count(extent.published_devices, 'published device')} selected. "
            f"{_count(extent.allocated_devices, 'allocated device')} selected. "
            f"{pods} would be evicted in {spaces} if the effect was NoExecute. "
            "This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."
        )
    else:
        reason, message = "OtherEffect", "Eviction only happens for the NoExecute effect."
    if extent.evicted:
        message = f"{message} {_count(extent.evicted, 'pod')} evicted since starting the controller.".strip()
    return status, reason, message


def _count(number: int, what: str, several: str = "") -> str:
    return f"1 {what}" if number == 1 else f"{number} {several or what + 's'}"
