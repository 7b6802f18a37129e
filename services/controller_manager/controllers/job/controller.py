"""Watches Jobs and their pods; frees pods whose Job is gone."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.job import plan as planner
from services.controller_manager.controllers.job.accounting import FINALIZER, is_tracked
from services.controller_manager.informers import OWNER, orphans_of
from services.controller_manager.ownership import claim
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import Job

_LOST = "lost//"


class JobController(OfKind):
    """job"""

    name = "job"
    kind = kinds.JOB
    workers = 4

    def watch(self) -> None:
        """Jobs, their pods, and pods that still wait to be counted by a Job that is gone."""
        self.on(kinds.JOB, self._on_job)
        self.on(kinds.POD, self.controller.enqueue_owner("Job"))
        self.on(kinds.POD, self._on_pod)

    def _on_job(self, old: Job | None, new: Job | None) -> None:
        if new is not None:
            self.add(new.metadata.key)
            return
        assert old is not None
        for pod in self.lister(kinds.POD).by_index(OWNER, old.metadata.uid):
            self.add(_LOST + pod.metadata.key)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or not is_tracked(new):
            return
        owner = new.metadata.controller
        if (
            owner is None
            or owner.kind != "Job"
            or self.lister(kinds.JOB).get(new.metadata.namespace, owner.name) is None
        ):
            self.add(_LOST + new.metadata.key)
        if owner is None:
            for job in self.lister(kinds.JOB).list(new.metadata.namespace):
                if not job.spec.selector.empty and job.spec.selector.matches(new.metadata.labels):
                    self.add(job.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        if key.startswith(_LOST):
            return await self._let_go(key.removeprefix(_LOST))
        job: Job | None = self.lister(kinds.JOB).by_key(key)
        if job is None:
            return None
        pods = await self._owned(key, job)
        return planner.plan(job, pods, self.env.now())

    async def _owned(self, key: str, job: Job) -> list[Pod]:
        lister = self.lister(kinds.POD)
        candidates = [*lister.by_index(OWNER, job.metadata.uid)]
        if not job.spec.selector.empty:
            candidates += lister.by_index(OWNER, orphans_of(job.metadata.namespace))
        finalizers = () if planner.is_finished(job.status) else (FINALIZER,)
        matches = job.spec.selector.matches
        claims = claim(kinds.JOB, job, matches, kinds.POD, candidates, finalizers=finalizers)
        return await self.claimed(key, kinds.JOB, job.metadata, claims)

    async def _let_go(self, key: str) -> Plan | None:
        """A pod that no Job will ever count."""
        pod: Pod | None = self.lister(kinds.POD).by_key(key)
        if pod is None or not is_tracked(pod):
            return None
        owner = pod.metadata.controller
        if owner is not None and owner.kind == "Job":
            job = self.lister(kinds.JOB).get(pod.metadata.namespace, owner.name)
            if job is not None and job.metadata.uid == owner.uid:
                return None
            if job is None and await self.lives(kinds.JOB, pod.metadata.namespace, owner.name, owner.uid):
                return Plan(requeue_after=1)
        return Plan([planner.release(pod)])
