"""Watches CronJobs and the Jobs that they made."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.cron_job import plan as planner
from services.controller_manager.informers import OWNER
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.workloads import CronJob


class CronJobController(OfKind):
    """cronjob"""

    name = "cronjob"
    kind = kinds.CRON_JOB

    def watch(self) -> None:
        """CronJobs, and Jobs by owner."""
        self.on_own(kinds.CRON_JOB)
        self.on(kinds.JOB, self.controller.enqueue_owner("CronJob"))

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        cron_job: CronJob | None = self.lister(kinds.CRON_JOB).by_key(key)
        if cron_job is None:
            return None
        jobs = self.lister(kinds.JOB).by_index(OWNER, cron_job.metadata.uid)
        return planner.plan(cron_job, jobs, self.env.now())
