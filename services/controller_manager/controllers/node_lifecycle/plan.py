"""Which nodes are silent, and what that and their conditions mean for the taints on them.

A node's heart beats in its Lease and in its status. Whether it has stopped is judged by how long *this process* has
seen no change, never by the node's clock against ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Emit,
    Patch,
    Plan,
    condition_json,
    rfc3339,
)
from services.controller_manager.pods import ready_condition
from services.controller_manager.views.meta import Condition, condition
from services.controller_manager.views.pod import Node, Pod, Taint

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

GRACE_SECONDS = 50.0
# A node that has just registered gets longer, because its kubelet is busy starting.
STARTUP_GRACE_SECONDS = 60.0

_PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_HEARTBEATS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_OURS = frozenset((*_PRESSURE.values(), NOT_READY, UNREACHABLE, UNSCHEDULABLE))


class Eviction(Enum):
    """What the state of the whole cluster means for the taints that drive pods away."""

    ALLOWED = "allowed"
    # Not now, or not yet: what is there stays, and nothing is added.
    HELD = "held"
    # Every node seems to be lost, so the fault is ours: pods that have not left yet stay.
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When this process last saw the node's lease or status change.

    `since_start` until the node has ever been heard.
    """

    seen: datetime
    heard: bool


def plan(node: Node, pods: Iterable[Pod], heartbeat: Heartbeat, eviction: Eviction, now: datetime) -> Plan:
    """The writes for one node and the pods on it."""
    out = Plan()
    if node.metadata.deletionTimestamp is not None:
        return out
    grace = GRACE_SECONDS if heartbeat.heard else STARTUP_GRACE_SECONDS
    silent_for = (now - heartbeat.seen).total_seconds()
    changed: list[Condition] = []
    if silent_for > grace:
        changed = _silenced(node, now)
        if changed:
            out.actions.append(_conditions_patch(node, changed))
            text = f"Node {node.metadata.name} status is now: NodeNotReady"
            if any(entry.type == "Ready" for entry in changed):
                out.actions.append(Emit(NORMAL, "NodeNotReady", text))
    else:
        out.wake(grace - silent_for + 0.1)
    states = {entry.type: entry.status for entry in (*node.status.conditions, *changed)}
    taints = wanted_taints(node, states, eviction, now)
    if taints is not None:
        patch = {"spec": {"taints": taints or None}}
        # The node may have been written just above, or by its kubelet: taints are replaced whole, so their former state
        # is a condition.
        out.actions.append(
            Patch(kinds.NODE, "", node.metadata.name, patch, uid=node.metadata.uid, revision=node.metadata.revision)
        )
    if states.get("Ready") == "Unknown":
        for pod in pods:
            out.actions += _mark_not_ready(pod, now)
    return out


def _silenced(node: Node, now: datetime) -> list[Condition]:
    """Conditions that nobody vouches for any more."""
    out = []
    for kind in _HEARTBEATS:
        old = condition(node.status.conditions, kind)
        if old is None:
            reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
            created = node.metadata.creationTimestamp
            out.append(Condition(kind, "Unknown", reason, message, now, lastHeartbeatTime=created))
        elif old.status != "Unknown":
            reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
            out.append(Condition(kind, "Unknown", reason, message, now, lastHeartbeatTime=old.lastHeartbeatTime))
    return out


def _conditions_patch(node: Node, changed: list[Condition]) -> Patch:
    new = {entry.type: entry for entry in changed}
    merged = [new.pop(entry.type, entry) for entry in node.status.conditions] + list(new.values())
    patch = {"status": {"conditions": [condition_json(entry) for entry in merged]}}
    meta = node.metadata
    return Patch(kinds.NODE, "", meta.name, patch, "status", uid=meta.uid, revision=meta.revision)


def wanted_taints(
    node: Node, states: Mapping[str, str], eviction: Eviction, now: datetime
) -> list[dict[str, Any]] | None:
    """All taints that the node should have, those of others included; None if it has them."""
    wanted: set[tuple[str, str]] = set()
    ready = states.get("Ready")
    if ready != "True":
        key = NOT_READY if ready == "False" else UNREACHABLE
        if ready is not None:
            wanted.add((key, "NoSchedule"))
            there = any(taint.key == key and taint.effect == "NoExecute" for taint in node.spec.taints)
            if eviction is Eviction.ALLOWED or (there and eviction is Eviction.HELD):
                wanted.add((key, "NoExecute"))
    for kind, key in _PRESSURE.items():
        if states.get(kind) == "True":
            wanted.add((key, "NoSchedule"))
    if node.spec.unschedulable:
        wanted.add((UNSCHEDULABLE, "NoSchedule"))
    if ready is None:
        # Nothing is known of a node that has just registered itself: its own not-ready taint stays until it speaks.
        wanted |= {(taint.key, taint.effect) for taint in node.spec.taints if taint.key in (NOT_READY, UNREACHABLE)}
    present = {(taint.key, taint.effect) for taint in node.spec.taints}
    ours_now = {pair for pair in present if pair[0] in _OURS and pair[1] in ("NoSchedule", "NoExecute")}
    if ours_now == wanted:
        return None
    kept = [taint for taint in node.spec.taints if (taint.key, taint.effect) not in ours_now - wanted]
    added = sorted(wanted - present)
    return [taint_json(taint) for taint in kept] + [
        {"key": key, "effect": effect, "timeAdded": rfc3339(now)} for key, effect in added
    ]


def taint_json(taint: Taint) -> dict[str, Any]:
    """A taint as the API writes it."""
    out: dict[str, Any] = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        out["value"] = taint.value
    if taint.timeAdded is not None:
        out["timeAdded"] = rfc3339(taint.timeAdded)
    return out


def _mark_not_ready(pod: Pod, now: datetime) -> list[Action]:
    """Nobody is there to say that the pod is not ready, and it must leave its Services."""
    ready = ready_condition(pod.status)
    if ready is None or ready.status != "True":
        return []
    conditions = []
    for entry in pod.status.conditions:
        out = condition_json(entry)
        if entry.type == "Ready":
            out |= {"status": "False", "lastTransitionTime": rfc3339(now)}
        conditions.append(out)
    meta = pod.metadata
    patch = {"status": {"conditions": conditions}}
    return [Patch(kinds.POD, meta.namespace, meta.name, patch, "status", uid=meta.uid, revision=meta.revision)]


def registered(node: Node) -> Emit:
    """A node was seen for the first time."""
    name = node.metadata.name
    return Emit(NORMAL, "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")


def removed(name: str) -> Emit:
    """A node is gone."""
    return Emit(NORMAL, "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")


# What the pods of a silent node are told.
POD_EVENT = Emit(WARNING, "NodeNotReady", "Node is not ready")
