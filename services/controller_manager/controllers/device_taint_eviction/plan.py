"""When a pod has to go because of the taints of its devices. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from machinery.api import kinds
from machinery.api.device_taints import NO_EXECUTE, selects, tolerates
from services.controller_manager.actions import NORMAL, Delete, Emit, Patch, Plan
from services.controller_manager.pods import disruption_conditions
from services.controller_manager.views.devices import (
    Device,
    DeviceTaint,
    DeviceTaintRule,
    DeviceToleration,
    ResourceClaim,
    Result,
)
from services.controller_manager.views.pod import Pod

REASON = "DeletionByDeviceTaintManager"
MESSAGE = "Device Taint manager: deleting due to NoExecute taint"

Find = Callable[[Result], Device | None]


class Eviction(NamedTuple):
    """When a pod has to leave its devices, and the uids of the DeviceTaintRules that are among the causes."""

    moment: datetime
    rules: frozenset[str]


def eviction_of(
    claims: Iterable[ResourceClaim],
    find: Find,
    rules: Sequence[DeviceTaintRule],
    first_seen: Callable[[DeviceTaint], datetime],
) -> Eviction | None:
    """The earliest moment that any device of the claims names; None: all may be kept.

    `first_seen` stands in for taints that do not say when they were added.
    """
    moments: list[datetime] = []
    causes: set[str] = set()
    for result in (result for claim in claims for result in results(claim)):
        device = find(result)
        taints = [(taint, "") for taint in (device.taints if device is not None else ())]
        taints += [(rule.spec.taint, rule.metadata.uid) for rule in rules if concerns(rule, result)]
        for taint, rule_uid in taints:
            seconds = _patience(result.tolerations, taint) if taint.effect == NO_EXECUTE else None
            if seconds is not None:
                moments.append((taint.timeAdded or first_seen(taint)) + timedelta(seconds=seconds))
                causes |= {rule_uid} - {""}
    return Eviction(min(moments), frozenset(causes)) if moments else None


def results(claim: ResourceClaim) -> tuple[Result, ...]:
    """The devices that the claim has."""
    return claim.status.allocation.devices.results if claim.status.allocation is not None else ()


def concerns(rule: DeviceTaintRule, result: Result) -> bool:
    """Whether the rule taints this device."""
    return selects(rule.spec.deviceSelector, result.driver, result.pool, result.device)


def _patience(tolerations: Sequence[DeviceToleration], taint: DeviceTaint) -> int | None:
    """For how many seconds the taint is borne; None: for ever."""
    # Only a toleration that names the effect keeps a pod, as upstream has it.
    matching = [each for each in tolerations if each.effect == NO_EXECUTE and tolerates(each, taint)]
    if any(each.tolerationSeconds is None for each in matching):
        return None
    return min((max(0, each.tolerationSeconds or 0) for each in matching), default=0)


def plan(pod: Pod, moment: datetime | None, now: datetime) -> Plan:
    """Evict the pod, wait, or leave it alone."""
    out = Plan()
    if moment is None or pod.metadata.deletionTimestamp is not None:
        return out
    if moment > now:
        out.wake((moment - now).total_seconds())
        return out
    meta = pod.metadata
    status = {"status": {"conditions": disruption_conditions(pod, REASON, MESSAGE, now)}}
    out.actions = [
        Emit(NORMAL, "DeviceTaintManagerEviction", "Marking for deletion"),
        Patch(kinds.POD, meta.namespace, meta.name, status, "status", uid=meta.uid, revision=meta.revision),
        Delete(kinds.POD, meta.namespace, meta.name, uid=meta.uid),
    ]
    return out
