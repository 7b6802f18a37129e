"""Devices that become usable only after the decision (KEP-5007): conditions that their driver sets on the claim."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.scheduler.devices.objects import DeviceResourceClaim, Result

BIND_SECONDS_MAX = 600.0
"""How long a pod waits for its devices' conditions: upstream's default."""


def failure(claim: DeviceResourceClaim) -> str:
    """What a driver says went wrong for good with a device of the claim; empty: nothing."""
    for result, conditions in _conditions(claim):
        for name in result.bindingFailureConditions or ():
            found = conditions.get(name)
            if found is not None and found[0] == "True":
                reason, message = found[1:]
                return f'device binding failed: claim={claim.metadata.name}, reason={reason}, message="{message}"'
    return ""


def ready(claim: DeviceResourceClaim) -> bool:
    """Whether all of the claim's devices may be used."""
    return claim.status.allocation is not None and all(
        conditions.get(name, ("",))[0] == "True"
        for result, conditions in _conditions(claim)
        for name in result.bindingConditions or ()
    )


def given_up(claim: DeviceResourceClaim, seconds_max: float, now: datetime) -> bool:
    """Whether the claim's devices failed, or were waited for too long."""
    if failure(claim):
        return True
    allocation = claim.status.allocation
    if ready(claim) or allocation is None or allocation.allocationTimestamp is None:
        return False
    return allocation.allocationTimestamp + timedelta(seconds=seconds_max) < now


def _conditions(claim: DeviceResourceClaim) -> list[tuple[Result, dict[str, tuple[str, str, str]]]]:
    allocation = claim.status.allocation
    states = {state.id: state for state in claim.status.devices or ()}
    out = []
    for result in allocation.devices.results if allocation else ():
        if result.bindingConditions:
            state = states.get(result.id)
            conditions = {c.type: (c.status, c.reason, c.message) for c in state.conditions} if state else {}
            out.append((result, conditions))
    return out
