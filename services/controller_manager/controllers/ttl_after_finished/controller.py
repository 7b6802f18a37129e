"""Deletes finished Jobs when their time to live is over."""

from __future__ import annotations

from datetime import datetime, timedelta

from machinery.api import kinds
from services.controller_manager.actions import Delete, Plan
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.workloads import Job, finished_at


def plan(job: Job, now: datetime) -> Plan:
    """Delete it, or wait until then."""
    seconds = job.spec.ttlSecondsAfterFinished
    ended = finished_at(job.status)
    if seconds is None or ended is None or job.metadata.deletionTimestamp is not None:
        return Plan()
    left = (ended + timedelta(seconds=seconds) - now).total_seconds()
    if left > 0:
        return Plan(requeue_after=left)
    meta = job.metadata
    # The revision guards against a time to live that was raised a moment ago.
    return Plan(
        [Delete(kinds.JOB, meta.namespace, meta.name, meta.uid, revision=meta.revision, propagation="Foreground")]
    )


class TtlAfterFinishedController(OfKind):
    """ttl-after-finished-controller"""

    name = "ttl-after-finished-controller"
    kind = kinds.JOB

    def watch(self) -> None:
        """Jobs."""
        self.on_own(kinds.JOB)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        job: Job | None = self.lister(kinds.JOB).by_key(key)
        return plan(job, self.env.now()) if job is not None else None
