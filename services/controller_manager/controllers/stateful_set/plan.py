"""A StatefulSet's next step: pods in the order of their ordinals, at most one change at a time unless the set is
Parallel.

A pod is replaced only after it is gone from the API: two pods of one identity never exist, whatever became of the first
one's node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
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
    Patch,
    Plan,
    mismatched,
    status_patch,
)
from services.controller_manager.controllers.stateful_set import identity
from services.controller_manager.intstr import scaled
from services.controller_manager.views.cluster import PersistentVolumeClaim
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import ControllerRevision, StatefulSet


def plan(
    owner: StatefulSet,
    pods: Sequence[Pod],
    claims: Sequence[PersistentVolumeClaim],
    known: Sequence[ControllerRevision],
    now: datetime,
) -> Plan:
    """The next step. Pods and revisions are those that the set owns; claims all of its namespace that might be its."""
    if owner.spec.selector.empty:
        message = "This StatefulSet is selecting all pods. A non-empty selector is required."
        return Plan([Emit(WARNING, "SelectingAll", message)])
    if wrong := templates.mismatch(owner.spec.selector, owner.spec.template):
        return mismatched(kinds.STATEFUL_SET, owner, wrong, now)
    history = revisions.sync(kinds.STATEFUL_SET, owner, known, label="controller.kubernetes.io/hash")
    if not history.is_stored:
        return Plan(history.actions)
    step = _Step(owner, pods, {claim.metadata.name: claim for claim in claims}, history, now)
    if owner.metadata.deletionTimestamp is None:
        step.run()
    out = Plan(status_patch(kinds.STATEFUL_SET, owner, step.status()))
    out.actions += step.actions
    live = {pod.metadata.labels.get(revisions.HASH_LABEL, "") for pod in pods} | {step.current.metadata.name}
    out.actions += revisions.prune(history, live, owner.spec.revisionHistoryLimit)
    out.wake(podlib.next_availability(filter(podlib.is_active, pods), owner.spec.minReadySeconds, now))
    return out


@dataclass(slots=True)
class _Step:
    owner: StatefulSet
    pods: Sequence[Pod]
    claims: dict[str, PersistentVolumeClaim]
    history: revisions.History
    now: datetime
    actions: list[Action] = field(default_factory=list)
    current: ControllerRevision = field(init=False)
    slots: dict[int, Pod | None] = field(init=False)
    condemned: list[Pod] = field(init=False)

    def __post_init__(self) -> None:
        name = self.owner.status.get("currentRevision")
        found = next((each for each in self.history.all if each.metadata.name == name), None)
        self.current = found or self.history.update
        start = self.owner.spec.ordinals.start
        self.slots = dict.fromkeys(range(start, start + self.owner.spec.replicas))
        condemned: list[tuple[int, Pod]] = []
        for pod in self.pods:
            ordinal = identity.ordinal_of(self.owner, pod.metadata.name)
            if ordinal is None:
                continue
            if ordinal in self.slots:
                self.slots[ordinal] = pod
            else:
                condemned.append((ordinal, pod))
        self.condemned = [pod for _, pod in sorted(condemned, key=lambda each: -each[0])]

    # --- steps --------------------------------------------------------------------------------------------------------

    @property
    def ordered(self) -> bool:
        """Whether each pod waits for the one before it."""
        return self.owner.spec.podManagementPolicy != "Parallel"

    def run(self) -> None:
        """Fill, then shrink, then update: in an ordered set each only once the one before has nothing left to do."""
        self._retain()
        if not self._fill() and self.ordered:
            return
        if not self._shrink() and self.ordered:
            return
        if self.owner.spec.updateStrategy.type == "RollingUpdate":
            self._update()

    def _fill(self) -> bool:
        """Create what is missing. Whether every slot has a pod that is available."""
        complete = True
        for ordinal, pod in self.slots.items():
            settled = self._fill_one(ordinal, pod)
            complete &= settled
            if not settled and self.ordered:
                return False
        return complete

    def _fill_one(self, ordinal: int, pod: Pod | None) -> bool:
        if pod is None:
            self._create(ordinal)
            return False
        if podlib.is_terminal(pod):
            if pod.metadata.deletionTimestamp is None:
                self._replace(pod)
            return False
        if pod.metadata.deletionTimestamp is not None:
            return False
        if pod.status.phase == "Pending":
            self.actions += identity.create_claims(self.owner, ordinal, self.claims)
        self._mend(ordinal, pod)
        return self._is_available(pod)

    def _replace(self, pod: Pod) -> None:
        word, reason = (
            ("Failed", "RecreatingFailedPod")
            if pod.status.phase == "Failed"
            else ("Terminated", "RecreatingTerminatedPod")
        )
        meta = self.owner.metadata
        text = f"StatefulSet {meta.namespace}/{meta.name} is recreating {word.lower()} Pod {pod.metadata.name}"
        self.actions.append(Emit(WARNING, reason, text))
        self._delete(pod)

    def _shrink(self) -> bool:
        """Delete from the highest ordinal down. Whether nothing is left that has to go."""
        if not self.ordered:
            for pod in self.condemned:
                if pod.metadata.deletionTimestamp is None:
                    self._delete(pod)
            return not self.condemned
        if not self.condemned:
            return True
        highest = self.condemned[0]
        if highest.metadata.deletionTimestamp is not None:
            return False
        # One that is not well may still be the one to go, unless another, lower one is not well either.
        unwell = [pod for pod in self.condemned if not self._is_available(pod)]
        if not unwell or unwell[-1] is highest or self._is_available(highest):
            self._delete(highest)
        return False

    def _update(self) -> None:
        """Replace pods of other revisions from the highest ordinal down to the partition."""
        rolling = self.owner.spec.updateStrategy.rollingUpdate
        partition = (rolling.partition if rolling else None) or 0
        spec = rolling.maxUnavailable if rolling and rolling.maxUnavailable is not None else 1
        allowed = max(1, scaled(spec, self.owner.spec.replicas, round_up=False))
        missing = sum(1 for pod in self.slots.values() if pod is None or not self._is_available(pod))
        room = allowed - missing
        update = self.history.update.metadata.name
        for ordinal in sorted(self.slots, reverse=True):
            if ordinal < max(partition, self.owner.spec.ordinals.start):
                return
            pod = self.slots[ordinal]
            if pod is None or pod.metadata.deletionTimestamp is not None:
                if self.ordered and allowed == 1:
                    return
                continue
            old = self._revision(pod) != update
            if not self._is_available(pod):
                if old:
                    # It serves nobody and may never: waiting for it would block the repair.
                    self._delete(pod)
                if allowed == 1:
                    return
                continue
            if old:
                if room <= 0:
                    return
                self._delete(pod)
                room -= 1

    # --- writes -------------------------------------------------------------------------------------------------------

    def _create(self, ordinal: int) -> None:
        revision = self._wanted(ordinal)
        name = identity.pod_name(self.owner, ordinal)
        about = f"create Pod {name} in StatefulSet {self.owner.metadata.name}"
        success = Note(NORMAL, "SuccessfulCreate", f"{about} successful")
        failure = Note(WARNING, "FailedCreate", f"{about} failed error: {{error}}")
        self.actions += identity.create_claims(self.owner, ordinal, self.claims)
        template = revisions.template_of(revision)
        obj = identity.new_pod(self.owner, template, ordinal, revision.metadata.name)
        self.actions.append(Create(kinds.POD, obj, success, failure))

    def _wanted(self, ordinal: int) -> ControllerRevision:
        """The revision of which a missing pod is made: below the partition the one that has been."""
        if self.owner.spec.updateStrategy.type != "RollingUpdate":
            return self.history.update
        rolling = self.owner.spec.updateStrategy.rollingUpdate
        current_replicas = int(self.owner.status.get("currentReplicas") or 0)
        below = current_replicas if rolling is None else rolling.partition or 0
        return self.current if ordinal < self.owner.spec.ordinals.start + below else self.history.update

    def _delete(self, pod: Pod) -> None:
        meta = pod.metadata
        about = f"delete Pod {meta.name} in StatefulSet {self.owner.metadata.name}"
        success = Note(NORMAL, "SuccessfulDelete", f"{about} successful")
        failure = Note(WARNING, "FailedDelete", f"{about} failed error: {{error}}")
        action = Delete(kinds.POD, meta.namespace, meta.name, uid=meta.uid, on_success=success, on_failure=failure)
        if action not in self.actions:
            self.actions.append(action)

    def _mend(self, ordinal: int, pod: Pod) -> None:
        marks = {identity.POD_NAME: pod.metadata.name, identity.POD_INDEX: str(ordinal)}
        if marks.items() <= pod.metadata.labels.items():
            return
        meta = pod.metadata
        self.actions.append(Patch(kinds.POD, meta.namespace, meta.name, {"metadata": {"labels": marks}}, uid=meta.uid))

    def _retain(self) -> None:
        by_ordinal = {**self.slots}
        by_ordinal |= {identity.ordinal_of(self.owner, pod.metadata.name) or 0: pod for pod in self.condemned}
        for ordinal, pod in by_ordinal.items():
            for template in self.owner.spec.volumeClaimTemplates:
                claim = self.claims.get(identity.claim_name(self.owner, template, ordinal))
                if claim is not None and claim.metadata.deletionTimestamp is None:
                    condemned = ordinal not in self.slots
                    self.actions += identity.retention(self.owner, claim, pod, condemned=condemned)

    # --- looking ------------------------------------------------------------------------------------------------------

    def _is_available(self, pod: Pod) -> bool:
        running = pod.status.phase == "Running" and pod.metadata.deletionTimestamp is None
        return running and podlib.is_available(pod, self.owner.spec.minReadySeconds, self.now)

    def _revision(self, pod: Pod) -> str:
        return pod.metadata.labels.get(revisions.HASH_LABEL, "")

    def status(self) -> dict[str, Any]:
        """The counts of what was observed."""
        owned = [pod for pod in (*self.slots.values(), *self.condemned) if pod is not None]
        current, update = self.current.metadata.name, self.history.update.metadata.name
        going = [pod for pod in owned if pod.metadata.deletionTimestamp is None]
        ready = [pod for pod in owned if pod.status.phase == "Running" and podlib.is_ready(pod)]
        counts = {
            "observedGeneration": self.owner.metadata.generation,
            "readyReplicas": len(ready),
            "currentReplicas": sum(1 for pod in going if self._revision(pod) == current),
            "updatedReplicas": sum(1 for pod in going if self._revision(pod) == update),
            "collisionCount": self.owner.status.get("collisionCount"),
        }
        desired = self.owner.spec.replicas
        over = (
            self.owner.spec.updateStrategy.type == "RollingUpdate"
            and counts["updatedReplicas"] == counts["readyReplicas"] == len(owned) == desired
        )
        if over:
            current, counts["currentReplicas"] = update, counts["updatedReplicas"]
        out = {name: value for name, value in counts.items() if value}
        available = sum(map(self._is_available, owned))
        return {
            "replicas": len(owned),
            "availableReplicas": available,
            "currentRevision": current,
            "updateRevision": update,
            **out,
        }
