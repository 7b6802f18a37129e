"""Watches Deployments, their ReplicaSets and (for Recreate) pods; carries out `plan`."""

from __future__ import annotations

from machinery.api import kinds
from machinery.api.errors import AlreadyExists
from services.controller_manager import templates
from services.controller_manager.actions import Action, Create, Plan
from services.controller_manager.apply import Outcome
from services.controller_manager.controllers.deployment import plan as planner
from services.controller_manager.informers import OWNER, orphans_of
from services.controller_manager.ownership import claim
from services.controller_manager.pods import is_terminal
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import Deployment, ReplicaSet


class DeploymentController(OfKind):
    """deployment"""

    name = "deployment"
    kind = kinds.DEPLOYMENT
    workers = 4

    def watch(self) -> None:
        """Deployments.

        ReplicaSets by owner, and those without one by label; pods that end while a Recreate waits for it.
        """
        self.on_own(kinds.DEPLOYMENT)
        self.on(kinds.REPLICA_SET, self.controller.enqueue_owner("Deployment"))
        self.on(kinds.REPLICA_SET, self._on_orphan)
        self.on(kinds.POD, self._on_pod)

    def _on_orphan(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        if new is None or new.metadata.controller is not None or new.metadata.deletionTimestamp is not None:
            return
        for deployment in self.lister(kinds.DEPLOYMENT).list(new.metadata.namespace):
            selector = deployment.spec.selector
            if not selector.empty and selector.matches(new.metadata.labels):
                self.add(deployment.metadata.key)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """Recreate goes on when the last old pod has ended."""
        pod = new or old
        if pod is None or not (new is None or is_terminal(pod)):
            return
        owner = pod.metadata.controller
        if owner is None or owner.kind != "ReplicaSet":
            return
        replica_set = self.lister(kinds.REPLICA_SET).get(pod.metadata.namespace, owner.name)
        parent = replica_set.metadata.controller if replica_set else None
        if parent is None or parent.kind != "Deployment":
            return
        deployment = self.lister(kinds.DEPLOYMENT).get(pod.metadata.namespace, parent.name)
        if deployment is not None and deployment.spec.strategy.type == "Recreate":
            self.add(deployment.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """One step of the rollout."""
        deployment: Deployment | None = self.lister(kinds.DEPLOYMENT).by_key(key)
        if deployment is None:
            return None
        replica_sets = await self._owned(key, deployment)
        observed = planner.Observed(deployment, replica_sets, self._running(deployment, replica_sets))
        plan = planner.plan(observed, self.env.now())
        outcome = await self.apply(key, self.subject(key), plan.actions)
        if isinstance(outcome.failed, Create):
            await self._creation_failed(key, deployment, outcome)
        outcome.check()
        return Plan(requeue_after=plan.requeue_after)

    async def _owned(self, key: str, deployment: Deployment) -> list[ReplicaSet]:
        if deployment.spec.selector.empty:
            return []
        lister = self.lister(kinds.REPLICA_SET)
        orphans = lister.by_index(OWNER, orphans_of(deployment.metadata.namespace))
        candidates = [*lister.by_index(OWNER, deployment.metadata.uid), *orphans]
        matches = deployment.spec.selector.matches
        claims = claim(kinds.DEPLOYMENT, deployment, matches, kinds.REPLICA_SET, candidates)
        return await self.claimed(key, kinds.DEPLOYMENT, deployment.metadata, claims)

    def _running(self, deployment: Deployment, replica_sets: list[ReplicaSet]) -> dict[str, int]:
        if deployment.spec.strategy.type != "Recreate":
            return {}
        pods = self.lister(kinds.POD)
        return {
            rs.metadata.uid: sum(1 for pod in pods.by_index(OWNER, rs.metadata.uid) if not is_terminal(pod))
            for rs in replica_sets
        }

    async def _creation_failed(self, key: str, deployment: Deployment, outcome: Outcome) -> None:
        """The name may be taken by an equal ReplicaSet of ours (another pass was faster) or by something else.

        Then hash anew.
        """
        assert isinstance(outcome.failed, Create)
        assert outcome.error is not None
        metadata = outcome.failed.obj["metadata"]
        actions: list[Action] = []
        if isinstance(outcome.error, AlreadyExists):
            existing = await self.env.client.get(kinds.REPLICA_SET, metadata["name"], metadata["namespace"])
            live = self.env.informers.decode(kinds.REPLICA_SET, existing)
            owner = live.metadata.controller
            ours = owner is not None and owner.uid == deployment.metadata.uid
            if not ours or not templates.equal_ignoring_hash(live.spec.template, deployment.spec.template):
                actions = planner.hash_collision(deployment)
        else:
            error = outcome.error.message
            actions = planner.creation_failed(deployment, metadata["name"], error, self.env.now())
        await self.apply(key, None, actions)
