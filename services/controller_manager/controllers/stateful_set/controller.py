"""Watches StatefulSets, their pods, revisions and claims."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.stateful_set import plan as planner
from services.controller_manager.controllers.stateful_set.identity import ordinal_of
from services.controller_manager.history_owner import HistoryOwner
from services.controller_manager.views.cluster import PersistentVolumeClaim
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import ControllerRevision, StatefulSet


class StatefulSetController(HistoryOwner):
    """statefulset"""

    name = "statefulset"
    kind = kinds.STATEFUL_SET

    def watch(self) -> None:
        """StatefulSets, their pods and revisions; claims are read."""
        self.watch_owned()
        self.informers.of(kinds.PERSISTENT_VOLUME_CLAIM)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        owner: StatefulSet | None = self.lister(kinds.STATEFUL_SET).by_key(key)
        if owner is None:
            return None
        pods: list[Pod] = []
        revisions: list[ControllerRevision] = []
        if not owner.spec.selector.empty:
            # Only a name makes a pod one of the set's: a stranger with the right labels is left alone.
            pods = await self.owned(key, owner, kinds.POD, lambda pod: ordinal_of(owner, pod.metadata.name) is not None)
            revisions = await self.owned(key, owner, kinds.CONTROLLER_REVISION)
        claims: list[PersistentVolumeClaim] = []
        if owner.spec.volumeClaimTemplates:
            claims = self.lister(kinds.PERSISTENT_VOLUME_CLAIM).list(owner.metadata.namespace)
        return planner.plan(owner, pods, claims, revisions, self.env.now())
