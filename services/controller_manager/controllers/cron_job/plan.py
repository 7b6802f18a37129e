"""What a CronJob does now: notes jobs that have ended, forgets old ones, starts the one that is due.

A job's name says for which minute it is, so that no crash and no stale cache can start one twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from machinery.api import kinds
from services.controller_manager import templates
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Create,
    Delete,
    Emit,
    Note,
    Plan,
    is_true,
    parse_rfc3339,
    rfc3339,
    status_patch,
)
from services.controller_manager.controllers.cron_job.schedule import (
    MISSED_MAX,
    InvalidSchedule,
    InvalidTimeZone,
    NeverDue,
    Schedule,
)
from services.controller_manager.views.workloads import CronJob, Job

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plan(cron_job: CronJob, jobs: Sequence[Job], now: datetime) -> Plan:
    """The next step. `jobs` are those that the CronJob controls."""
    return _Step(cron_job, jobs, now).run()


class _Step:
    def __init__(self, cron_job: CronJob, jobs: Sequence[Job], now: datetime) -> None:
        self.obj = cron_job
        self.jobs = [job for job in jobs if job.metadata.deletionTimestamp is None]
        self.now = now
        self.out = Plan()
        self.active: list[dict[str, Any]] = list(cron_job.status.get("active") or [])
        self.status = dict(cron_job.status)

    def run(self) -> Plan:
        self._forget_old()
        self._follow()
        writes: list[Any] = []
        if self.obj.metadata.deletionTimestamp is None and not self.obj.spec.suspend:
            writes = self._start()
        if self.active:
            self.status["active"] = self.active
        else:
            self.status.pop("active", None)
        # The job first: a status that speaks of a job which was never made would miss that start for good.
        self.out.actions += [*writes, *status_patch(kinds.CRON_JOB, self.obj, self.status)]
        return self.out

    # --- what has been ------------------------------------------------------------------------------------------------

    def _forget_old(self) -> None:
        spec = self.obj.spec
        for kind, limit in (
            ("Complete", spec.successfulJobsHistoryLimit),
            ("Failed", spec.failedJobsHistoryLimit),
        ):
            if limit is None:
                continue
            ended = sorted((job for job in self.jobs if is_true(job.status, kind)), key=_started)
            for job in ended[: max(0, len(ended) - limit)]:
                self._delete(job)

    def _follow(self) -> None:
        by_uid = {job.metadata.uid: job for job in self.jobs}
        listed = {ref.get("uid") for ref in self.active}
        for uid, job in by_uid.items():
            ended = next((kind for kind in ("Complete", "Failed") if is_true(job.status, kind)), "")
            if ended and uid in listed:
                text = f"Saw completed job: {job.metadata.name}, condition: {ended}"
                self._say(NORMAL, "SawCompletedJob", text)
                self.active = [ref for ref in self.active if ref.get("uid") != uid]
            elif not ended and uid not in listed and SCHEDULED in job.metadata.annotations:
                # One of ours that was not listed yet: it has just been seen for the first time.
                self.active.append(_reference(job))
            elif not ended and uid not in listed:
                text = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
                self._say(WARNING, "UnexpectedJob", text)
            if ended == "Complete" and (at := job.status.get("completionTime")):
                self.status["lastSuccessfulTime"] = max(at, self.status.get("lastSuccessfulTime") or at)
        for ref in list(self.active):
            if ref.get("uid") not in by_uid:
                self._say(NORMAL, "MissingJob", f"Active job went missing: {ref.get('name')}")
                self.active.remove(ref)

    # --- what is due --------------------------------------------------------------------------------------------------

    def _start(self) -> list[Any]:
        spec = self.obj.spec
        try:
            if "TZ=" in spec.schedule:
                self._say(WARNING, "UnsupportedSchedule", f"CRON_TZ or TZ used in schedule {spec.schedule!r}")
                return []
            schedule = Schedule(spec.schedule, spec.timeZone)
        except InvalidTimeZone as err:
            self._say(WARNING, "UnknownTimeZone", f'invalid timeZone: "{spec.timeZone}": {err}')
            return []
        except NeverDue as err:
            self._say(WARNING, "InvalidSchedule", f"invalid schedule: {spec.schedule} : {err}")
            return []
        except InvalidSchedule as err:
            self._say(WARNING, "UnparseableSchedule", f'unparseable schedule: "{spec.schedule}" : {err}')
            return []
        self.out.wake((schedule.next(self.now) - self.now).total_seconds() + 0.1)
        due, missed = schedule.latest(self._earliest(), self.now)
        if due is None:
            return []
        if missed > MISSED_MAX:
            text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self._say(WARNING, "TooManyMissedTimes", text)
        deadline = spec.startingDeadlineSeconds
        if deadline is not None and due + timedelta(seconds=deadline) < self.now:
            text = due.strftime("%a, %d %b %Y %H:%M:%S +0000")
            self._say(WARNING, "MissSchedule", f"Missed scheduled time to start a job: {text}")
            return []
        return self._begin(schedule, due)

    def _earliest(self) -> datetime:
        meta = self.obj.metadata
        earliest = parse_rfc3339(self.status.get("lastScheduleTime")) or meta.creationTimestamp or self.now
        if self.obj.spec.startingDeadlineSeconds is not None:
            earliest = max(earliest, self.now - timedelta(seconds=self.obj.spec.startingDeadlineSeconds))
        return earliest

    def _begin(self, schedule: Schedule, due: datetime) -> list[Any]:
        name = f"{self.obj.metadata.name}-{int(due.timestamp()) // 60}"
        existing = next((job for job in self.jobs if job.metadata.name == name), None)
        if existing is not None:
            self.status["lastScheduleTime"] = rfc3339(due)
            return []
        policy = self.obj.spec.concurrencyPolicy
        if policy == "Forbid" and self.active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._say(NORMAL, "JobAlreadyActive", text)
            return []
        if policy == "Replace":
            for job in [job for job in self.jobs if job.metadata.uid in {ref.get("uid") for ref in self.active}]:
                self._delete(job)
            self.active = []
        self.status["lastScheduleTime"] = rfc3339(due)
        success = Note(NORMAL, "SuccessfulCreate", "Created job {name}")
        failure = Note(WARNING, "FailedCreate", "Error creating job: {error}")
        obj = job_from(self.obj, name, due.astimezone(schedule.zone))
        # Its uid is known once it is seen; then `_follow` lists it as active.
        return [Create(kinds.JOB, obj, success, failure, exists_ok=True)]

    # --- writes -------------------------------------------------------------------------------------------------------

    def _say(self, kind: str, reason: str, text: str) -> None:
        self.out.actions.append(Emit(kind, reason, text))

    def _delete(self, job: Job) -> None:
        meta = job.metadata
        self.jobs = [other for other in self.jobs if other is not job]
        self.active = [ref for ref in self.active if ref.get("uid") != meta.uid]
        note = Note(NORMAL, "SuccessfulDelete", "Deleted job {name}")
        self.out.actions.append(
            Delete(kinds.JOB, meta.namespace, meta.name, uid=meta.uid, propagation="Background", on_success=note)
        )


def _reference(job: Job) -> dict[str, Any]:
    meta = job.metadata
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resourceVersion,
    }


def _started(job: Job) -> tuple[datetime, str]:
    moment = parse_rfc3339(job.status.get("startTime")) or job.metadata.creationTimestamp or _EPOCH
    return moment, job.metadata.name


def job_from(cron_job: CronJob, name: str, due: datetime) -> dict[str, Any]:
    """The Job for one scheduled time (in the schedule's own zone)."""
    template = templates.decode(cron_job.spec.jobTemplate)
    given = template.get("metadata") or {}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": cron_job.metadata.namespace,
        "annotations": {**(given.get("annotations") or {}), SCHEDULED: due.isoformat().replace("+00:00", "Z")},
        "ownerReferences": [templates.owner_reference(kinds.CRON_JOB, cron_job.metadata)],
    }
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template.get("spec") or {}}
