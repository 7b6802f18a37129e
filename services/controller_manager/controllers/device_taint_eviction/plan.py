"""When a pod has to go because of the taints of its devices. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from machinery.api import kinds
from services.controller_manager.actions import NORMAL, Delete, Emit, Patch, Plan
from services.controller_manager.pods import disruption_conditions
from services.controller_manager.views.devices import Device, DeviceTaint, DeviceToleration, ResourceClaim, Result
from services.controller_manager.views.pod import Pod

REASON = "DeletionByDeviceTaintManager"
MESSAGE = "Device Taint manager: deleting due to NoExecute taint"

Find = Callable[[Result], Device | None]


def tolerates(toleration: DeviceToleration, taint: DeviceTaint) -> bool:
    """Only a toleration that names the effect NoExecute keeps a pod, as upstream has it."""
    if toleration.effect != "NoExecute" or (toleration.key and toleration.key != taint.key):
        return False
    if toleration.operator == "Exists":
        return True
    return toleration.operator in ("", "Equal") and toleration.value == taint.value


def leave_at(
    claims: Iterable[ResourceClaim], find: Find, first_seen: Callable[[DeviceTaint], datetime]
) -> datetime | None:
    """The earliest moment that any device of the claims names; None: all may be kept.

    `first_seen` stands in for taints that do not say when they were added.
    """
    moments = []
    for claim in claims:
        for result in claim.status.allocation.devices.results if claim.status.allocation is not None else ():
            device = find(result)
            for taint in device.taints if device is not None else ():
                if taint.effect != "NoExecute":
                    continue
                seconds = _patience(result.tolerations, taint)
                if seconds is not None:
                    moments.append((taint.timeAdded or first_seen(taint)) + timedelta(seconds=seconds))
    return min(moments, default=None)


def _patience(tolerations: Sequence[DeviceToleration], taint: DeviceTaint) -> int | None:
    """For how many seconds the taint is borne; None: for ever."""
    matching = [each for each in tolerations if tolerates(each, taint)]
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
