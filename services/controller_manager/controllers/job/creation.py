"""Which pods a running Job has too many, and which it lacks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from machinery.api import kinds
from services.controller_manager import pods as podlib
from services.controller_manager import templates
from services.controller_manager.actions import NORMAL, WARNING, Create, Note
from services.controller_manager.controllers.job.accounting import FINALIZER, Account, is_failed
from services.controller_manager.controllers.job.indexes import FAILURES, INDEX, failures_of, index_of
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import Job

BURST = 500
BACKOFF_SECONDS_FIRST = 10.0
BACKOFF_SECONDS_MAX = 600.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Creation:
    """`surplus` pods to remove, `creations` to make, and `wait`: seconds until more may be made."""

    def __init__(
        self,
        job: Job,
        pods: Sequence[Pod],
        active: Sequence[Pod],
        terminating: Sequence[Pod],
        counts: Account,
        now: datetime,
    ) -> None:
        self._job = job
        self._pods = pods
        self._counts = counts
        self._now = now
        self._indexed = job.spec.completionMode == "Indexed"
        self.wait: float | None = None
        wanted = self._wanted(len(active))
        self.surplus = self._surplus(active, wanted)
        kept = [pod for pod in active if pod not in self.surplus]
        missing = wanted - len(kept)
        if self._replaces_only_failed():
            missing -= len(terminating)
        self.creations = self._create(kept, terminating, min(missing, BURST)) if missing > 0 else []

    def _wanted(self, active: int) -> int:
        spec = self._job.spec
        succeeded = self._counts.total_succeeded(indexed=self._indexed)
        if spec.completions is None:
            # A work queue: once one has succeeded, the others finish and none is started.
            return min(active, spec.parallelism) if succeeded else spec.parallelism
        left = spec.completions - succeeded
        if self._indexed:
            left -= len(self._counts.failed_indexes)
        return max(0, min(left, spec.parallelism))

    def _replaces_only_failed(self) -> bool:
        spec = self._job.spec
        return spec.podReplacementPolicy == "Failed" or (
            spec.podFailurePolicy is not None and not spec.podReplacementPolicy
        )

    def _surplus(self, active: Sequence[Pod], wanted: int) -> list[Pod]:
        surplus: list[Pod] = []
        if self._indexed:
            seen: set[int] = set()
            # The older of two pods of one index is the one that counts.
            for pod in sorted(active, key=lambda pod: pod.metadata.creationTimestamp or _EPOCH):
                index = index_of(pod)
                if index is None or index in seen or not self._is_open(index):
                    surplus.append(pod)
                else:
                    seen.add(index)
        rest = [pod for pod in active if pod not in surplus]
        excess = len(rest) - wanted
        if excess > 0:
            surplus += podlib.deletion_order(rest, {}, self._now)[:excess]
        return surplus

    def _is_open(self, index: int) -> bool:
        limit = self._job.spec.completions or 0
        return index < limit and index not in self._counts.completed and index not in self._counts.failed_indexes

    # --- making -------------------------------------------------------------------------------------------------------

    def _create(self, kept: Sequence[Pod], terminating: Sequence[Pod], count: int) -> list[Create]:
        if self._indexed:
            return self._create_indexed(kept, terminating, count)
        wait = self._backoff(self._pods)
        if wait > 0:
            self.wait = wait
            return []
        obj = self._pod()
        return [self._action(obj) for _ in range(count)]

    def _create_indexed(self, kept: Sequence[Pod], terminating: Sequence[Pod], count: int) -> list[Create]:
        taken = {index_of(pod) for pod in kept}
        if self._replaces_only_failed():
            taken |= {index_of(pod) for pod in terminating}
        by_index: dict[int | None, list[Pod]] = {}
        for pod in self._pods:
            by_index.setdefault(index_of(pod), []).append(pod)
        per_index = self._job.spec.backoffLimitPerIndex is not None
        general = 0.0 if per_index else self._backoff(self._pods)
        if general > 0:
            self.wait = general
            return []
        out: list[Create] = []
        for index in range(self._job.spec.completions or 0):
            if len(out) >= count:
                break
            if index in taken or not self._is_open(index):
                continue
            past = by_index.get(index, [])
            wait = self._backoff(past) if per_index else 0.0
            if wait > 0:
                self.wait = wait if self.wait is None else min(self.wait, wait)
                continue
            out.append(self._action(self._pod(index, past if per_index else None)))
        return out

    def _backoff(self, pods: Sequence[Pod]) -> float:
        """Seconds until a failed pod may be replaced: twice as long after each failure in a row."""
        ended = [(_ended_at(pod), pod) for pod in pods if pod.status.phase == "Succeeded" or is_failed(self._job, pod)]
        last_success = max((at for at, pod in ended if pod.status.phase == "Succeeded"), default=_EPOCH)
        failures = [at for at, pod in ended if pod.status.phase != "Succeeded" and at > last_success]
        if not failures:
            return 0.0
        delay = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_FIRST * 2 ** min(len(failures) - 1, 16))
        return (max(failures) + timedelta(seconds=delay) - self._now).total_seconds()

    def _action(self, obj: dict[str, Any]) -> Create:
        success = Note(NORMAL, "SuccessfulCreate", "Created pod: {name}")
        return Create(kinds.POD, obj, success, Note(WARNING, "FailedCreate", "Error creating: {error}"))

    def _pod(self, index: int | None = None, past: Sequence[Pod] | None = None) -> dict[str, Any]:
        meta = self._job.metadata
        obj = templates.pod_from(templates.decode(self._job.spec.template), kinds.JOB, meta)
        metadata = obj["metadata"]
        metadata["finalizers"] = [*metadata.get("finalizers", ()), FINALIZER]
        if index is None:
            return obj
        mark = {INDEX: str(index)}
        metadata["annotations"] = {**metadata.get("annotations", {}), **mark}
        metadata["labels"] = {**metadata.get("labels", {}), **mark}
        if past is not None:
            before = [failures_of(pod) + 1 for pod in past if is_failed(self._job, pod)]
            metadata["annotations"][FAILURES] = str(max(before, default=0))
        # Names are cut so that the generated suffix still fits into 63 characters, as host names must.
        suffix = f"-{index}-"
        metadata["generateName"] = meta.name[: 63 - 5 - len(suffix)] + suffix
        obj["spec"].setdefault("hostname", f"{meta.name}-{index}"[:63].rstrip("-."))
        field = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in (*obj["spec"].get("initContainers", ()), *obj["spec"].get("containers", ())):
            env = container.setdefault("env", [])
            if not any(entry["name"] == "JOB_COMPLETION_INDEX" for entry in env):
                env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": copy.deepcopy(field)})
        return obj


def _ended_at(pod: Pod) -> datetime:
    moments = [
        status.state.terminated.finishedAt
        for status in pod.status.containerStatuses
        if status.state.terminated is not None and status.state.terminated.finishedAt is not None
    ]
    if moments:
        return max(moments)
    ready = podlib.ready_condition(pod.status)
    changed = ready.lastTransitionTime if ready else None
    return changed or pod.metadata.deletionTimestamp or pod.metadata.creationTimestamp or _EPOCH
