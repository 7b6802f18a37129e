"""Watches ReplicaSets (or ReplicationControllers) and pods; keeps the number, then counts."""

from __future__ import annotations

from typing import ClassVar

from machinery.api import errors, kinds
from machinery.api.kinds import Kind
from services.controller_manager import templates
from services.controller_manager.actions import WARNING, Create, Emit, Plan, status_patch
from services.controller_manager.controllers.replicaset import plan as planner
from services.controller_manager.informers import OWNER, orphans_of
from services.controller_manager.ownership import claim
from services.controller_manager.pods import is_active, next_availability
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.meta import LabelSelector
from services.controller_manager.views.pod import Pod


class ReplicaSetController(OfKind):
    """replicaset"""

    name = "replicaset"
    kind: ClassVar[Kind] = kinds.REPLICA_SET
    workers = 4

    def watch(self) -> None:
        """The sets; pods by owner; and pods that a set should adopt."""
        self.on_own(self.kind)
        self.on(kinds.POD, self.controller.enqueue_owner(self.kind.kind))
        self.on(kinds.POD, self._on_orphan)

    def selector(self, owner: planner.Replicated) -> LabelSelector:
        """What the set selects."""
        selector = owner.spec.selector
        return selector if isinstance(selector, LabelSelector) else LabelSelector(matchLabels=selector)

    def _on_orphan(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.metadata.controller is not None or new.metadata.deletionTimestamp is not None:
            return
        for owner in self.lister(self.kind).list(new.metadata.namespace):
            selector = self.selector(owner)
            if not selector.empty and selector.matches(new.metadata.labels):
                self.add(owner.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """Create or delete what is missing or too many, and write what there was."""
        owner: planner.Replicated | None = self.lister(self.kind).by_key(key)
        if owner is None:
            return None
        pods = await self._owned(key, owner)
        now = self.env.now()
        wrong = templates.mismatch(self.selector(owner), owner.spec.template)
        if wrong:
            status = planner.status(owner, pods, ("SelectorMismatch", wrong), now)
            return Plan([Emit(WARNING, "SelectorMismatch", wrong), *status_patch(self.kind, owner, status)])
        actions = planner.scale(self.kind, owner, pods, self._siblings(owner, pods), now)
        outcome = await self.apply(key, self.subject(key), actions)
        failure = None
        if outcome.error is not None:
            reason = "FailedCreate" if isinstance(outcome.failed, Create) else "FailedDelete"
            failure = (reason, outcome.error.message)
        plan = Plan(status_patch(self.kind, owner, planner.status(owner, pods, failure, now)))
        plan.wake(next_availability(filter(is_active, pods), owner.spec.minReadySeconds, now))
        if outcome.error is not None:
            await self._report(key, plan)
            outcome.check()
        if len(actions) >= planner.BURST:
            plan.wake(0)
        return plan

    async def _report(self, key: str, plan: Plan) -> None:
        """Write the status of a failed pass; the failure itself is what is raised."""
        outcome = await self.apply(key, None, plan.actions)
        if outcome.error is not None and not isinstance(outcome.error, errors.Conflict):
            self.log.warning("status not written", key=key, error=outcome.error.message)

    async def _owned(self, key: str, owner: planner.Replicated) -> list[Pod]:
        selector = self.selector(owner)
        if selector.empty:
            return []
        lister = self.lister(kinds.POD)
        orphans = lister.by_index(OWNER, orphans_of(owner.metadata.namespace))
        candidates = [*lister.by_index(OWNER, owner.metadata.uid), *orphans]
        # An ended pod stays with its owner but is not worth adopting.
        claims = claim(self.kind, owner, selector.matches, kinds.POD, candidates)
        return await self.claimed(key, self.kind, owner.metadata, claims)

    def _siblings(self, owner: planner.Replicated, pods: list[Pod]) -> list[Pod]:
        """Pods of all sets of the same grandparent: of two equal pods the one with more kin on its node goes first."""
        parent = owner.metadata.controller
        if parent is None or self.kind is not kinds.REPLICA_SET or len(pods) <= owner.spec.replicas:
            return pods
        lister = self.lister(kinds.POD)
        sets = self.lister(self.kind).by_index(OWNER, parent.uid)
        return [pod for each in sets for pod in lister.by_index(OWNER, each.metadata.uid)]


class ReplicationControllerController(ReplicaSetController):
    """replicationcontroller"""

    name = "replicationcontroller"
    component = "replication-controller"
    kind = kinds.REPLICATION_CONTROLLER
    workers = 2
