"""One pod on every node that a DaemonSet is for; replaced node by node when its template changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from machinery.api import kinds
from services.controller_manager import pods as podlib
from services.controller_manager import revisions, templates
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Create,
    Delete,
    Emit,
    Note,
    Plan,
    mismatched,
    status_patch,
)
from services.controller_manager.controllers.daemon_set.pods import Placement, new_pod, target
from services.controller_manager.intstr import scaled
from services.controller_manager.views.pod import Node, Pod
from services.controller_manager.views.workloads import ControllerRevision, DaemonSet

BURST = 250
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _OnNode:
    """A node, what is wanted there, and the daemon's pods there that have not ended."""

    starts: bool
    stays: bool
    old: list[Pod] = field(default_factory=list)
    new: list[Pod] = field(default_factory=list)
    failed: list[Pod] = field(default_factory=list)

    @property
    def running(self) -> list[Pod]:
        return [*self.old, *self.new]


@dataclass(slots=True)
class _Changes:
    create_on: list[str] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    events: list[Action] = field(default_factory=list)


def plan(
    daemon_set: DaemonSet,
    nodes: Sequence[Node],
    pods: Sequence[Pod],
    known: Sequence[ControllerRevision],
    now: datetime,
) -> Plan:
    """The next step. `pods` and `known` revisions are those that the DaemonSet owns."""
    out = Plan()
    if daemon_set.spec.selector.empty:
        message = "This daemon set is selecting all pods. A non-empty selector is required."
        return Plan([Emit(WARNING, "SelectingAll", message)])
    if wrong := templates.mismatch(daemon_set.spec.selector, daemon_set.spec.template):
        return mismatched(kinds.DAEMON_SET, daemon_set, wrong, now)
    history = revisions.sync(kinds.DAEMON_SET, daemon_set, known)
    out.actions += history.actions
    current = revisions.hash_of(history.update)
    by_node = _by_node(daemon_set, nodes, pods, current)
    if daemon_set.metadata.deletionTimestamp is None and history.is_stored:
        changes = _manage(daemon_set, by_node, pods, {node.metadata.name for node in nodes}, now)
        if daemon_set.spec.updateStrategy.type == "RollingUpdate":
            _roll(daemon_set, by_node, changes, now)
        out.actions += changes.events
        out.actions += [_delete(pod) for pod in changes.delete[:BURST]]
        template = templates.decode(daemon_set.spec.template)
        out.actions += [_create(new_pod(daemon_set, template, node, current)) for node in changes.create_on[:BURST]]
        live = {f"{daemon_set.metadata.name}-{pod.metadata.labels.get(revisions.HASH_LABEL)}" for pod in pods}
        out.actions += revisions.prune(history, live, daemon_set.spec.revisionHistoryLimit)
    status = _status(daemon_set, by_node, now)
    # The status goes first: what follows may fail, and it is true whatever comes of that.
    out.actions = [*status_patch(kinds.DAEMON_SET, daemon_set, status), *out.actions]
    out.wake(podlib.next_availability(filter(podlib.is_active, pods), daemon_set.spec.minReadySeconds, now))
    return out


def _by_node(daemon_set: DaemonSet, nodes: Sequence[Node], pods: Sequence[Pod], current: str) -> dict[str, _OnNode]:
    placement = Placement(daemon_set)
    by_node = {node.metadata.name: _OnNode(*placement.wants(node)) for node in nodes}
    for pod in sorted(pods, key=lambda pod: (pod.metadata.creationTimestamp or _EPOCH, pod.metadata.name)):
        where = by_node.get(target(pod))
        if where is None:
            continue
        if podlib.is_terminal(pod):
            where.failed.append(pod)
        elif pod.metadata.labels.get(revisions.HASH_LABEL) == current:
            where.new.append(pod)
        else:
            where.old.append(pod)
    return by_node


def _manage(
    daemon_set: DaemonSet, by_node: dict[str, _OnNode], pods: Sequence[Pod], names: set[str], now: datetime
) -> _Changes:
    """One pod where one belongs, none where none does."""
    changes = _Changes()
    surge = bounds(daemon_set, by_node)[0] > 0
    for name, where in by_node.items():
        alive = [pod for pod in where.running if pod.metadata.deletionTimestamp is None]
        for pod in where.failed:
            if pod.metadata.deletionTimestamp is None:
                meta = pod.metadata
                text = f"Found failed daemon pod {meta.namespace}/{meta.name} on node {name}, will try to kill it"
                reason = "FailedDaemonPod" if pod.status.phase == "Failed" else "SucceededDaemonPod"
                changes.events.append(Emit(WARNING, reason, text))
                changes.delete.append(pod)
        if not where.stays:
            changes.delete += alive
        elif where.starts and not where.running and not where.failed:
            changes.create_on.append(name)
        elif len(alive) > 1:
            changes.delete += _extras(alive, where, surge=surge)
    # Pods that nobody will ever bind, because the node that they are pinned to is gone.
    changes.delete += [
        pod
        for pod in pods
        if not pod.spec.nodeName and target(pod) not in names and pod.metadata.deletionTimestamp is None
    ]
    return changes


def _extras(alive: list[Pod], where: _OnNode, *, surge: bool) -> list[Pod]:
    """All but the oldest; during a surge the oldest old one and the oldest new one stay."""
    if not surge:
        return alive[1:]
    keep = {each[0].metadata.uid for each in (where.old, where.new) if each}
    return [pod for pod in alive if pod.metadata.uid not in keep]


def bounds(daemon_set: DaemonSet, by_node: dict[str, _OnNode]) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers of nodes; both round up."""
    desired = sum(1 for where in by_node.values() if where.starts)
    rolling = daemon_set.spec.updateStrategy.rollingUpdate
    surge = scaled(rolling.maxSurge, desired, round_up=True) if rolling and rolling.maxSurge is not None else 0
    spec = rolling.maxUnavailable if rolling and rolling.maxUnavailable is not None else 1
    unavailable = scaled(spec, desired, round_up=True)
    if surge == 0 and unavailable == 0 and desired:
        unavailable = 1
    return surge, unavailable


def _roll(daemon_set: DaemonSet, by_node: dict[str, _OnNode], changes: _Changes, now: datetime) -> None:
    surge, unavailable = bounds(daemon_set, by_node)
    going = {pod.metadata.uid for pod in changes.delete}
    nodes = {name: where for name, where in by_node.items() if where.starts or (where.stays and where.running)}
    if surge:
        _roll_surging(daemon_set, nodes, changes, surge, going, now)
    else:
        _roll_replacing(daemon_set, nodes, changes, unavailable, going, now)


def _alive(pods: list[Pod], going: set[str]) -> Pod | None:
    return next((p for p in pods if p.metadata.deletionTimestamp is None and p.metadata.uid not in going), None)


def _roll_replacing(
    daemon_set: DaemonSet,
    nodes: dict[str, _OnNode],
    changes: _Changes,
    unavailable_max: int,
    going: set[str],
    now: datetime,
) -> None:
    seconds = daemon_set.spec.minReadySeconds
    unavailable = 0
    broken: list[Pod] = []
    candidates: list[Pod] = []
    for where in nodes.values():
        new, old = _alive(where.new, going), _alive(where.old, going)
        if new is not None:
            unavailable += not podlib.is_available(new, seconds, now)
        elif old is None:
            unavailable += 1
        elif not podlib.is_available(old, seconds, now):
            # It serves nobody: replacing it costs nothing.
            broken.append(old)
            unavailable += 1
        else:
            candidates.append(old)
    changes.delete += broken + candidates[: max(0, unavailable_max - unavailable)]


def _roll_surging(
    daemon_set: DaemonSet, nodes: dict[str, _OnNode], changes: _Changes, surge_max: int, going: set[str], now: datetime
) -> None:
    seconds = daemon_set.spec.minReadySeconds
    surging = 0
    at_once: list[str] = []
    candidates: list[str] = []
    for name, where in nodes.items():
        new, old = _alive(where.new, going), _alive(where.old, going)
        if old is None:
            if new is None and where.old and name not in changes.create_on:
                # The old one is on its way out already: its successor need not wait for its end.
                at_once.append(name)
            continue
        if new is not None:
            surging += 1
            if podlib.is_available(new, seconds, now):
                changes.delete.append(old)
        elif not podlib.is_available(old, seconds, now):
            at_once.append(name)
        else:
            candidates.append(name)
    changes.create_on += at_once + candidates[: max(0, surge_max - surging)]


def _status(daemon_set: DaemonSet, by_node: dict[str, _OnNode], now: datetime) -> dict[str, Any]:
    seconds = daemon_set.spec.minReadySeconds
    counts = dict.fromkeys(("desired", "current", "misscheduled", "ready", "updated", "available"), 0)
    for where in by_node.values():
        pods = where.running
        if not where.starts:
            counts["misscheduled"] += bool(pods)
            continue
        counts["desired"] += 1
        if not pods:
            continue
        counts["current"] += 1
        ready = [pod for pod in pods if podlib.is_ready(pod)]
        counts["ready"] += bool(ready)
        counts["available"] += any(podlib.is_available(pod, seconds, now) for pod in ready)
        # As upstream, the oldest pod of a node stands for it, except that in a surge the new one counts.
        counts["updated"] += bool(where.new)
    out: dict[str, Any] = {
        "currentNumberScheduled": counts["current"],
        "numberMisscheduled": counts["misscheduled"],
        "desiredNumberScheduled": counts["desired"],
        "numberReady": counts["ready"],
    }
    optional = {
        "observedGeneration": daemon_set.metadata.generation,
        "updatedNumberScheduled": counts["updated"],
        "numberAvailable": counts["available"],
        "numberUnavailable": counts["desired"] - counts["available"],
        "collisionCount": daemon_set.status.get("collisionCount"),
    }
    return out | {name: value for name, value in optional.items() if value}


def _create(obj: dict[str, Any]) -> Create:
    success = Note(NORMAL, "SuccessfulCreate", "Created pod: {name}")
    return Create(kinds.POD, obj, success, Note(WARNING, "FailedCreate", "Error creating: {error}"))


def _delete(pod: Pod) -> Delete:
    meta = pod.metadata
    success = Note(NORMAL, "SuccessfulDelete", "Deleted pod: {name}")
    failure = Note(WARNING, "FailedDelete", "Error deleting: {error}")
    return Delete(kinds.POD, meta.namespace, meta.name, uid=meta.uid, on_success=success, on_failure=failure)
