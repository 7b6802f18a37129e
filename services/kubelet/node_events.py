"""What happened to a node, told from its status before and after. Pure. Reasons and words are upstream's."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# Reason by status, of each condition that is told of.
_REASONS = {
    "MemoryPressure": {"True": "NodeHasInsufficientMemory", "False": "NodeHasSufficientMemory"},
    "DiskPressure": {"True": "NodeHasDiskPressure", "False": "NodeHasNoDiskPressure"},
    "PIDPressure": {"True": "NodeHasInsufficientPID", "False": "NodeHasSufficientPID"},
    "Ready": {"True": "NodeReady", "False": "NodeNotReady"},
}


def happened(name: str, before: Json, after: Json) -> list[tuple[str, str, str]]:
    """(type, reason, message) of what to record, when the status of the node goes from one to the other."""
    events = []
    boot = (before.get("nodeInfo") or {}).get("bootID"), (after.get("nodeInfo") or {}).get("bootID")
    if boot[0] and boot[1] and boot[0] != boot[1]:
        events.append(("Warning", "Rebooted", f"Node {name} has been rebooted, boot id: {boot[1]}"))
    old = {c["type"]: c.get("status") for c in before.get("conditions") or ()}
    for condition in after.get("conditions") or ():
        kind, status = condition["type"], condition.get("status")
        reason = _REASONS.get(kind, {}).get(status)
        # A node that is new and not yet ready was never anything else.
        if reason is None or old.get(kind) == status or (reason == "NodeNotReady" and kind not in old):
            continue
        events.append(("Normal", reason, f"Node {name} status is now: {reason}"))
    return events
