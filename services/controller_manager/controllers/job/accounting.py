"""Counting ended pods exactly once, whatever crashes in between.

A pod of a Job carries a finalizer, so it cannot vanish before it is counted. Counting takes three writes, each of which
can be repeated:

    1. status: the pod's uid joins `uncountedTerminatedPods`
    2. pod:    the finalizer comes off
    3. status: the uid leaves `uncountedTerminatedPods` and the counter grows, in one write

The uid is in the list from before the finalizer is gone until the counter has grown. Successes of an Indexed Job need
no list: the set of completed indexes cannot count one twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.controller_manager.controllers.job.indexes import failures_of, index_of, parse
from services.controller_manager.controllers.job.policy import judge_failure
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import Job

FINALIZER = "batch.kubernetes.io/job-tracking"
# No write lists more uids than this.
UNCOUNTED_MAX = 500


@dataclass(slots=True)
class Account:
    """The counts after this pass. `release` are pods whose finalizer may come off once the status is written."""

    succeeded: int = 0
    failed: int = 0
    completed: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)
    uncounted_succeeded: list[str] = field(default_factory=list)
    uncounted_failed: list[str] = field(default_factory=list)
    release: list[Pod] = field(default_factory=list)
    fail_job: str = ""

    @property
    def total_failed(self) -> int:
        """Failures, written or about to be."""
        return self.failed + len(self.uncounted_failed)

    def total_succeeded(self, *, indexed: bool) -> int:
        """Successes, written or about to be."""
        return len(self.completed) if indexed else self.succeeded + len(self.uncounted_succeeded)

    @property
    def settled(self) -> bool:
        """Whether nothing waits to be counted."""
        return not self.uncounted_succeeded and not self.uncounted_failed and not self.release


def is_tracked(pod: Pod) -> bool:
    """Whether the pod has yet to be counted."""
    return FINALIZER in pod.metadata.finalizers


def is_failed(job: Job, pod: Pod) -> bool:
    """Failed, or on its way out where that is replaced like a failure."""
    if pod.status.phase == "Failed":
        return True
    only_failed = job.spec.podReplacementPolicy == "Failed" or (
        job.spec.podFailurePolicy is not None and not job.spec.podReplacementPolicy
    )
    return not only_failed and pod.metadata.deletionTimestamp is not None and pod.status.phase != "Succeeded"


def account(job: Job, pods: Sequence[Pod], *, failing: bool) -> Account:
    """Count what can be counted.

    In a Job that is `failing` every pod that is left counts as failed once it is being deleted.
    """
    status = job.status
    indexed = job.spec.completionMode == "Indexed"
    limit = job.spec.completions or 0
    out = Account(
        succeeded=int(status.get("succeeded") or 0),
        failed=int(status.get("failed") or 0),
        completed={index for index in parse(status.get("completedIndexes")) if index < limit} if indexed else set(),
        failed_indexes=parse(status.get("failedIndexes")) if indexed else set(),
    )
    tracked = {pod.metadata.uid: pod for pod in pods if is_tracked(pod)}
    uncounted: dict[str, Any] = status.get("uncountedTerminatedPods") or {}
    listed: set[str] = set()
    for uid in uncounted.get("succeeded") or ():
        listed.add(uid)
        if uid in tracked:
            out.uncounted_succeeded.append(uid)
            out.release.append(tracked[uid])
        else:
            out.succeeded += 1
    for uid in uncounted.get("failed") or ():
        listed.add(uid)
        if uid in tracked:
            out.uncounted_failed.append(uid)
            out.release.append(tracked[uid])
        else:
            out.failed += 1
    for uid, pod in tracked.items():
        if uid in listed or len(out.release) >= UNCOUNTED_MAX:
            continue
        if pod.status.phase == "Succeeded":
            _succeeded(out, pod, indexed=indexed, limit=limit)
        elif is_failed(job, pod) or (failing and pod.metadata.deletionTimestamp is not None):
            _failed(out, job, pod, indexed=indexed, limit=limit)
    if indexed:
        out.succeeded = len(out.completed)
    return out


def _succeeded(out: Account, pod: Pod, *, indexed: bool, limit: int) -> None:
    out.release.append(pod)
    if not indexed:
        out.uncounted_succeeded.append(pod.metadata.uid)
        return
    index = index_of(pod)
    if index is not None and index < limit and index not in out.failed_indexes:
        out.completed.add(index)


def _failed(out: Account, job: Job, pod: Pod, *, indexed: bool, limit: int) -> None:
    out.release.append(pod)
    index = index_of(pod) if indexed else None
    if indexed and (index is None or index >= limit):
        return
    verdict = judge_failure(job.spec, pod) if pod.status.phase == "Failed" else None
    if verdict is not None and not verdict.counts:
        return
    out.uncounted_failed.append(pod.metadata.uid)
    if verdict is not None and verdict.action == "FailJob" and not out.fail_job:
        out.fail_job = verdict.message
    if index is None or job.spec.backoffLimitPerIndex is None or index in out.completed:
        return
    past = failures_of(pod) + 1 > job.spec.backoffLimitPerIndex
    if past or (verdict is not None and verdict.action == "FailIndex"):
        out.failed_indexes.add(index)
