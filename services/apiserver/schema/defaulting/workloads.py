"""apps and batch: pkg/apis/apps/v1/defaults.go and pkg/apis/batch/v1/defaults.go."""

from __future__ import annotations

from typing import Any

from services.apiserver.schema.defaulting import pods

Obj = dict[str, Any]


def deployment(obj: Obj) -> None:
    """A Deployment."""
    spec = obj.setdefault("spec", {})
    pods.template(spec)
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        _fill(_below(strategy, "rollingUpdate"), maxUnavailable="25%", maxSurge="25%")
    obj.setdefault("status", {})


def replica_set(obj: Obj) -> None:
    """A ReplicaSet."""
    spec = obj.setdefault("spec", {})
    pods.template(spec)
    _fill(spec, replicas=1)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def daemon_set(obj: Obj) -> None:
    """A DaemonSet."""
    spec = obj.setdefault("spec", {})
    pods.template(spec)
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        _fill(_below(strategy, "rollingUpdate"), maxUnavailable=1, maxSurge=0)
    _fill(spec, revisionHistoryLimit=10)
    status = obj.setdefault("status", {})
    _fill(status, currentNumberScheduled=0, desiredNumberScheduled=0, numberMisscheduled=0, numberReady=0)


def stateful_set(obj: Obj) -> None:
    """A StatefulSet."""
    spec = obj.setdefault("spec", {})
    pods.template(spec)
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = _below(strategy, "rollingUpdate")
        _fill(rolling, partition=0)
    retention = _below(spec, "persistentVolumeClaimRetentionPolicy")
    for when in ("whenDeleted", "whenScaled"):
        if not retention.get(when):
            retention[when] = "Retain"
    _fill(spec, replicas=1, revisionHistoryLimit=10)
    spec.setdefault("serviceName", "")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        pods.claim_spec(claim.setdefault("spec", {}))
        status = claim.setdefault("status", {})
        if not status.get("phase"):
            status["phase"] = "Pending"
    _fill(obj.setdefault("status", {}), replicas=0, availableReplicas=0)


def job(obj: Obj) -> None:
    """A Job. Its selector and the template's labels are made by the registry, which knows the uid."""
    _job_spec(obj.setdefault("spec", {}))
    obj.setdefault("status", {})


def _job_spec(spec: Obj) -> None:
    pods.template(spec)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    _fill(spec, parallelism=1)
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 6 if spec.get("backoffLimitPerIndex") is None else 2**31 - 1
    _fill(spec, completionMode="NonIndexed", suspend=False)
    policy = spec.get("podFailurePolicy")
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"
    if spec.get("podReplacementPolicy") is None:
        spec["podReplacementPolicy"] = "TerminatingOrFailed" if policy is None else "Failed"


def cron_job(obj: Obj) -> None:
    """A CronJob. The jobs' own defaults come when each is created; only the pod template's are written here."""
    spec = obj.setdefault("spec", {})
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    _fill(spec, suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    job_template = spec.setdefault("jobTemplate", {})
    job_template.setdefault("metadata", {})
    pods.template(job_template.setdefault("spec", {}))
    obj.setdefault("status", {})


def controller_revision(obj: Obj) -> None:
    """A ControllerRevision: its number is always written."""
    obj.setdefault("revision", 0)


def _fill(obj: Obj, **values: Any) -> None:
    """Set each field that is absent."""
    for name, value in values.items():
        if obj.get(name) is None:
            obj[name] = value


def _below(obj: Obj, name: str) -> Obj:
    if obj.get(name) is None:
        obj[name] = {}
    below: Obj = obj[name]
    return below
