"""A Job's next step: count, judge whether it is over, then keep the right pods running.

running ──criteria met──► SuccessCriteriaMet ──its last pod ended──► Complete
   └─────can't succeed──► FailureTarget ───────its last pod ended──► Failed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from machinery.api import kinds
from services.controller_manager import pods as podlib
from services.controller_manager import templates
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Delete,
    Emit,
    Note,
    Patch,
    Plan,
    find_condition,
    is_true,
    parse_rfc3339,
    rfc3339,
    status_patch,
    with_condition,
)
from services.controller_manager.controllers.job import creation, policy
from services.controller_manager.controllers.job.accounting import (
    FINALIZER,
    Account,
    account,
    is_tracked,
)
from services.controller_manager.controllers.job.indexes import render
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import Job

# These are pointers upstream: a reader can tell none from not counted.
_WRITTEN_WHEN_ZERO = ("uncountedTerminatedPods", "ready", "terminating")


@dataclass(frozen=True, slots=True)
class _End:
    """That the Job is over, and why. `condition` is the interim one."""

    condition: str
    reason: str
    message: str

    @property
    def failed(self) -> bool:
        return self.condition == "FailureTarget"


def is_finished(status: dict[str, Any]) -> bool:
    """Whether the Job is complete or failed."""
    return is_true(status, "Complete") or is_true(status, "Failed")


def plan(job: Job, pods: Sequence[Pod], now: datetime) -> Plan:
    """The next step for a Job and the pods that it owns."""
    out = Plan()
    if is_finished(job.status) or job.spec.managedBy not in (None, "", "kubernetes.io/job-controller"):
        return out
    if job.metadata.deletionTimestamp is not None:
        out.actions += [release(pod) for pod in pods if is_tracked(pod)]
        return out
    known = _known_end(job)
    counts = account(job, pods, failing=known is not None and known.failed)
    active = [pod for pod in pods if podlib.is_active(pod)]
    terminating = [pod for pod in pods if podlib.is_terminating(pod)]
    end = known or _end(job, counts, pods, active, now)
    status, events = _status(job, counts, active, terminating, end, now)
    management: list[Action] = []
    if end is not None:
        management = [_delete(pod) for pod in active]
    elif job.spec.suspend:
        management = _remove(active)
        status["active"] = 0
    else:
        keep = creation.Creation(job, pods, active, terminating, counts, now)
        management = [*_remove(keep.surplus), *keep.creations]
        status["active"] = len(active) - len(keep.surplus) + len(keep.creations)
        out.wake(keep.wait)
        out.wake(_deadline_in(job, status, now))
    status = {name: value for name, value in status.items() if value or name in _WRITTEN_WHEN_ZERO}
    # Before any pod's finalizer comes off: what is not counted by then never will be.
    out.actions += status_patch(kinds.JOB, job, status, alone=True)
    out.actions += events
    out.actions += [release(pod) for pod in counts.release]
    out.actions += management
    return out


def release(pod: Pod) -> Patch:
    """Take the tracking finalizer off."""
    meta = pod.metadata
    kept = [name for name in meta.finalizers if name != FINALIZER] or None
    patch = {"metadata": {"finalizers": kept}}
    return Patch(kinds.POD, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision)


# --- is it over? ------------------------------------------------------------------------------------------------------


def _known_end(job: Job) -> _End | None:
    for kind in ("FailureTarget", "SuccessCriteriaMet"):
        entry = find_condition(job.status, kind)
        if entry is not None and entry["status"] == "True":
            return _End(kind, entry.get("reason", ""), entry.get("message", ""))
    return None


def _end(job: Job, counts: Account, pods: Sequence[Pod], active: Sequence[Pod], now: datetime) -> _End | None:
    spec = job.spec
    indexed = spec.completionMode == "Indexed"
    if not spec.selector.empty and (wrong := templates.mismatch(spec.selector, spec.template)):
        return _End("FailureTarget", "SelectorMismatch", wrong)
    if counts.fail_job:
        return _End("FailureTarget", "PodFailurePolicy", counts.fail_job)
    if counts.total_failed > spec.backoffLimit or _restarted_too_often(job, pods):
        return _End("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if _deadline_passed(job, now):
        return _End("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
    if indexed and counts.failed_indexes:
        if spec.maxFailedIndexes is not None and len(counts.failed_indexes) > spec.maxFailedIndexes:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return _End("FailureTarget", "MaxFailedIndexesExceeded", text)
        if len(counts.failed_indexes | counts.completed) >= (spec.completions or 0):
            return _End("FailureTarget", "FailedIndexes", "Job has failed indexes")
    if indexed and (matched := policy.success(spec, counts.completed)):
        return _End("SuccessCriteriaMet", "SuccessPolicy", matched)
    succeeded = counts.total_succeeded(indexed=indexed)
    # Without a number of completions a Job is a work queue: over when one has succeeded and the others have ended.
    done = succeeded > 0 and not active if spec.completions is None else succeeded >= spec.completions
    if done and not spec.suspend:
        text = "Reached expected number of succeeded pods"
        return _End("SuccessCriteriaMet", "CompletionsReached", text)
    return None


def _restarted_too_often(job: Job, pods: Sequence[Pod]) -> bool:
    """Where containers are restarted in place, their restarts are what is limited."""
    running = [
        pod for pod in pods if pod.status.phase in ("Running", "Pending") and pod.spec.restartPolicy == "OnFailure"
    ]
    restarts = sum(
        status.restartCount
        for pod in running
        for status in (*pod.status.initContainerStatuses, *pod.status.containerStatuses)
    )
    return restarts > 0 and restarts >= job.spec.backoffLimit


def _deadline_passed(job: Job, now: datetime) -> bool:
    start = parse_rfc3339(job.status.get("startTime"))
    seconds = job.spec.activeDeadlineSeconds
    if seconds is None or start is None or job.spec.suspend:
        return False
    return now >= start + timedelta(seconds=seconds)


def _deadline_in(job: Job, status: dict[str, Any], now: datetime) -> float | None:
    start = parse_rfc3339(status.get("startTime"))
    if job.spec.activeDeadlineSeconds is None or start is None:
        return None
    return (start + timedelta(seconds=job.spec.activeDeadlineSeconds) - now).total_seconds()


# --- status -----------------------------------------------------------------------------------------------------------


def _status(
    job: Job, counts: Account, active: Sequence[Pod], terminating: Sequence[Pod], end: _End | None, now: datetime
) -> tuple[dict[str, Any], list[Action]]:
    indexed = job.spec.completionMode == "Indexed"
    uncounted: dict[str, Any] = {}
    if counts.uncounted_succeeded:
        uncounted["succeeded"] = counts.uncounted_succeeded
    if counts.uncounted_failed:
        uncounted["failed"] = counts.uncounted_failed
    status: dict[str, Any] = {
        "active": len(active) if end is None else 0,
        "ready": sum(map(podlib.is_ready, active)),
        "terminating": len(terminating),
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "uncountedTerminatedPods": uncounted,
        "startTime": job.status.get("startTime"),
        "conditions": job.status.get("conditions") or [],
    }
    if indexed:
        status["completedIndexes"] = render(counts.completed)
        if job.spec.backoffLimitPerIndex is not None:
            status["failedIndexes"] = render(counts.failed_indexes)
    events = _suspension(job, status, now) if end is None else []
    if end is not None:
        events = _finish(job, status, end, over=not active and not terminating and counts.settled, now=now)
    return status, events


def _suspension(job: Job, status: dict[str, Any], now: datetime) -> list[Action]:
    was = is_true(job.status, "Suspended")
    events: list[Action] = []
    if job.spec.suspend:
        status["startTime"] = None
        if not was:
            status["conditions"] = _set(status["conditions"], "Suspended", "True", "JobSuspended", "Job suspended", now)
            events.append(Emit(NORMAL, "Suspended", "Job suspended"))
        return events
    if was:
        status["conditions"] = _set(status["conditions"], "Suspended", "False", "JobResumed", "Job resumed", now)
        status["startTime"] = rfc3339(now)
        events.append(Emit(NORMAL, "Resumed", "Job resumed"))
    elif not status["startTime"]:
        status["startTime"] = rfc3339(now)
    return events


def _finish(job: Job, status: dict[str, Any], end: _End, *, over: bool, now: datetime) -> list[Action]:
    status["conditions"] = _set(status["conditions"], end.condition, "True", end.reason, end.message, now)
    if not over:
        return []
    final = "Failed" if end.failed else "Complete"
    status["conditions"] = _set(status["conditions"], final, "True", end.reason, end.message, now)
    if end.failed:
        return [Emit(WARNING, end.reason, end.message)]
    status["completionTime"] = rfc3339(now)
    done: list[Action] = [Emit(NORMAL, "Completed", "Job completed")]
    wanted, succeeded = job.spec.completions, int(status.get("succeeded") or 0)
    if wanted is not None and succeeded > wanted:
        # More than one of them was at work when the last completion was counted.
        text = "Too many succeeded pods running after completion count reached"
        return [Emit(WARNING, "TooManySucceededPods", text), *done]
    return done


def _set(
    conditions: list[dict[str, Any]], kind: str, value: str, reason: str, message: str, now: datetime
) -> list[dict[str, Any]]:
    if any(c.get("type") == kind and c.get("status") == value for c in conditions):
        return conditions
    return with_condition(conditions, kind, value, reason, message, now, lastProbeTime=rfc3339(now))


# --- pods -------------------------------------------------------------------------------------------------------------


def _delete(pod: Pod) -> Delete:
    success = Note(NORMAL, "SuccessfulDelete", "Deleted pod: {name}")
    failure = Note(WARNING, "FailedDelete", "Error deleting: {error}")
    meta = pod.metadata
    return Delete(kinds.POD, meta.namespace, meta.name, uid=meta.uid, on_success=success, on_failure=failure)


def _remove(pods: Sequence[Pod]) -> list[Action]:
    """Pods that are not wanted any more leave without being counted."""
    releases: list[Action] = [release(pod) for pod in pods if is_tracked(pod)]
    return releases + [_delete(pod) for pod in pods]
