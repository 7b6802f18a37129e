"""What a Job's pod failure policy and success policy say."""

from __future__ import annotations

from dataclasses import dataclass

from services.controller_manager.controllers.job.indexes import parse
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import FailureRule, JobSpec


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one failed pod.

    `action` is "", "Ignore", "Count", "FailIndex" or "FailJob"; `message` says why the Job fails.
    """

    action: str = ""
    message: str = ""

    @property
    def counts(self) -> bool:
        """Whether the failure counts towards the back-off limits."""
        return self.action != "Ignore"


def judge_failure(spec: JobSpec, pod: Pod) -> Verdict:
    """The first rule that matches decides."""
    if spec.podFailurePolicy is None:
        return Verdict()
    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    for number, rule in enumerate(spec.podFailurePolicy.rules):
        why = _exit_code(rule, pod, name) if rule.onExitCodes is not None else _condition(rule, pod, name)
        if why:
            return Verdict(rule.action, f"{why} matching {rule.action} rule at index {number}")
    return Verdict()


def _exit_code(rule: FailureRule, pod: Pod, name: str) -> str:
    codes = rule.onExitCodes
    assert codes is not None
    for status in (*pod.status.containerStatuses, *pod.status.initContainerStatuses):
        ended = status.state.terminated
        if ended is None or ended.exitCode == 0 or codes.containerName not in (None, status.name):
            continue
        if (ended.exitCode in codes.values) == (codes.operator == "In"):
            return f"Container {status.name} for pod {name} failed with exit code {ended.exitCode}"
    return ""


def _condition(rule: FailureRule, pod: Pod, name: str) -> str:
    for pattern in rule.onPodConditions:
        for entry in pod.status.conditions:
            if entry.type == pattern.type and entry.status == (pattern.status or "True"):
                return f"Pod {name} has condition {entry.type}"
    return ""


def success(spec: JobSpec, completed: set[int]) -> str:
    """Why the Job has succeeded early; empty if it has not."""
    if spec.successPolicy is None:
        return ""
    for number, rule in enumerate(spec.successPolicy.rules):
        wanted = parse(rule.succeededIndexes) if rule.succeededIndexes is not None else None
        done = completed if wanted is None else completed & wanted
        if rule.succeededCount is not None:
            met = len(done) >= rule.succeededCount
        else:
            met = wanted is not None and done == wanted
        if met:
            return f"Matched rules at index {number}"
    return ""
