"""Watches PodDisruptionBudgets, pods, and the sizes of what owns them."""

from __future__ import annotations

from collections.abc import Sequence

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from services.controller_manager.actions import WARNING, Emit, Plan
from services.controller_manager.controllers.disruption import plan as planner
from services.controller_manager.reconciler import OfKind, reference
from services.controller_manager.views.cluster import PodDisruptionBudget
from services.controller_manager.views.meta import OwnerReference
from services.controller_manager.views.pod import Pod

_SIZED = {kind.kind: kind for kind in (kinds.REPLICA_SET, kinds.REPLICATION_CONTROLLER, kinds.STATEFUL_SET)}


class DisruptionController(OfKind):
    """disruption"""

    name = "disruption"
    component = "controllermanager"
    kind = kinds.POD_DISRUPTION_BUDGET

    def watch(self) -> None:
        """Budgets, and the pods that they select."""
        self.on_own(self.kind)
        # Pods of several budgets that were told so.
        self._shared: set[str] = set()
        self.on(kinds.POD, self._on_pod)
        for kind in (*_SIZED.values(), kinds.DEPLOYMENT):
            self.informers.of(kind)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if new is None:
            self._shared.discard(pod.metadata.uid)
        for budget in self.lister(self.kind).list(pod.metadata.namespace):
            for each in (old, new):
                if each is not None and _selects(budget, each):
                    self.add(budget.metadata.key)
                    break

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        budget: PodDisruptionBudget | None = self.lister(self.kind).by_key(key)
        if budget is None or budget.metadata.deletionTimestamp is not None:
            return None
        pods = [pod for pod in self.lister(kinds.POD).list(budget.metadata.namespace) if _selects(budget, pod)]
        expected: int | planner.Unknown
        try:
            expected = await self._expected(pods)
        except planner.Unknown as err:
            expected = err
        for pod, said in planner.not_deleted(budget, pods, self.env.now()):
            await self.apply(key, reference(kinds.POD, pod.metadata), [said])
        await self._tell_shared(key, budget, pods)
        return planner.plan(budget, pods, expected, self.env.now())

    async def _tell_shared(self, key: str, budget: PodDisruptionBudget, pods: Sequence[Pod]) -> None:
        """A pod of several budgets can't be evicted: it is told once."""
        namespace = budget.metadata.namespace
        others = [each for each in self.lister(self.kind).list(namespace) if each.metadata.uid != budget.metadata.uid]
        if not others:
            return
        for pod in pods:
            if pod.metadata.uid not in self._shared and any(_selects(other, pod) for other in others):
                self._shared.add(pod.metadata.uid)
                name = f'"{namespace}"/"{pod.metadata.name}"'
                text = f'Pod {name} matches multiple PodDisruptionBudgets, "{budget.metadata.name}" among them'
                said = Emit(WARNING, "MultiplePodDisruptionBudgets", text)
                await self.apply(key, reference(kinds.POD, pod.metadata), [said])

    async def _expected(self, pods: Sequence[Pod]) -> int:
        """The sum of what the pods' owners want; a pod without one is not expected. Raises Unknown."""
        sizes: dict[str, int] = {}
        seen: set[str] = set()
        for pod in pods:
            owner = pod.metadata.controller
            if owner is not None and owner.uid not in seen:
                seen.add(owner.uid)
                # Two ReplicaSets of one Deployment both answer for it, and it counts once.
                uid, size = await self._size(pod.metadata.namespace, owner)
                sizes[uid] = size
        return sum(sizes.values())

    async def _size(self, namespace: str, owner: OwnerReference) -> tuple[str, int]:
        kind = _SIZED.get(owner.kind)
        if kind is None:
            return owner.uid, await self._scale(namespace, owner)
        obj = self.lister(kind).get(namespace, owner.name)
        if obj is None or obj.metadata.uid != owner.uid:
            return owner.uid, 0
        parent = obj.metadata.controller
        if kind is kinds.REPLICA_SET and parent is not None and parent.kind == "Deployment":
            deployment = self.lister(kinds.DEPLOYMENT).get(namespace, parent.name)
            return parent.uid, deployment.spec.replicas if deployment is not None else 0
        return owner.uid, obj.spec.replicas

    async def _scale(self, namespace: str, owner: OwnerReference) -> int:
        """Any other owner tells its size by its scale subresource, if it has one."""
        group, _, version = owner.apiVersion.rpartition("/")
        kind = kinds.find(owner.apiVersion, owner.kind) or Kind(group, version, owner.kind, f"{owner.kind.lower()}s")
        try:
            scale = await self.env.client.get(kind, owner.name, namespace, subresource="scale")
        except errors.ApiError as err:
            text = f"{owner.kind.lower()}s.{group} does not implement the scale subresource"
            raise planner.Unknown(text) from err
        return int(objects.to_dict(scale).get("spec", {}).get("replicas") or 0)


def _selects(budget: PodDisruptionBudget, pod: Pod) -> bool:
    return budget.spec.selector is not None and budget.spec.selector.matches(pod.metadata.labels)
