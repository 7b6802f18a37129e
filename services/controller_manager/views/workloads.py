"""The workload kinds. Pod templates stay the bytes that they are: they are copied and compared, and seldom looked into.

`status` is a plain map wherever a controller of ours writes it, because it is compared with what it should be and the
difference becomes a patch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from services.controller_manager.views.meta import LabelSelector, Meta, View, nothing

Template = msgspec.Raw
IntOrString = int | str


def _no_template() -> msgspec.Raw:
    return msgspec.Raw(b"{}")


class RollingUpdate(View, frozen=True, gc=False):
    maxSurge: IntOrString | None = None
    maxUnavailable: IntOrString | None = None
    partition: int | None = None


class Strategy(View, frozen=True, gc=False):
    type: str = "RollingUpdate"
    rollingUpdate: RollingUpdate | None = None


class DeploymentSpec(View, frozen=True, gc=False):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: Template = msgspec.field(default_factory=_no_template)
    strategy: Strategy = Strategy()
    minReadySeconds: int = 0
    revisionHistoryLimit: int | None = 10
    paused: bool = False
    progressDeadlineSeconds: int | None = 600


class Deployment(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: DeploymentSpec = DeploymentSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class ReplicaSetSpec(View, frozen=True, gc=False):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: Template = msgspec.field(default_factory=_no_template)
    minReadySeconds: int = 0


class ReplicaSet(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class ReplicationControllerSpec(View, frozen=True, gc=False):
    replicas: int = 1
    selector: dict[str, str] = msgspec.field(default_factory=nothing)
    template: Template = msgspec.field(default_factory=_no_template)
    minReadySeconds: int = 0


class ReplicationController(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: ReplicationControllerSpec = ReplicationControllerSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class DaemonSetSpec(View, frozen=True, gc=False):
    selector: LabelSelector = LabelSelector()
    template: Template = msgspec.field(default_factory=_no_template)
    updateStrategy: Strategy = Strategy()
    minReadySeconds: int = 0
    revisionHistoryLimit: int | None = 10


class DaemonSet(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: DaemonSetSpec = DaemonSetSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class Ordinals(View, frozen=True, gc=False):
    start: int = 0


class ClaimRetentionPolicy(View, frozen=True, gc=False):
    whenDeleted: str = "Retain"
    whenScaled: str = "Retain"


class StatefulSetSpec(View, frozen=True, gc=False):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: Template = msgspec.field(default_factory=_no_template)
    volumeClaimTemplates: tuple[dict[str, Any], ...] = ()
    serviceName: str = ""
    podManagementPolicy: str = "OrderedReady"
    updateStrategy: Strategy = Strategy()
    revisionHistoryLimit: int | None = 10
    minReadySeconds: int = 0
    ordinals: Ordinals = Ordinals()
    persistentVolumeClaimRetentionPolicy: ClaimRetentionPolicy = ClaimRetentionPolicy()


class StatefulSet(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: StatefulSetSpec = StatefulSetSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class ControllerRevision(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    revision: int = 0
    data: msgspec.Raw = msgspec.field(default_factory=_no_template)


class ExitCodes(View, frozen=True, gc=False):
    operator: str = "In"
    values: tuple[int, ...] = ()
    containerName: str | None = None


class ConditionPattern(View, frozen=True, gc=False):
    type: str = ""
    status: str = "True"


class FailureRule(View, frozen=True, gc=False):
    action: str = ""
    onExitCodes: ExitCodes | None = None
    onPodConditions: tuple[ConditionPattern, ...] = ()


class FailurePolicy(View, frozen=True, gc=False):
    rules: tuple[FailureRule, ...] = ()


class SuccessRule(View, frozen=True, gc=False):
    succeededIndexes: str | None = None
    succeededCount: int | None = None


class SuccessPolicy(View, frozen=True, gc=False):
    rules: tuple[SuccessRule, ...] = ()


class JobSpec(View, frozen=True, gc=False):
    parallelism: int = 1
    completions: int | None = None
    completionMode: str = "NonIndexed"
    backoffLimit: int = 6
    backoffLimitPerIndex: int | None = None
    maxFailedIndexes: int | None = None
    activeDeadlineSeconds: int | None = None
    ttlSecondsAfterFinished: int | None = None
    suspend: bool = False
    selector: LabelSelector = LabelSelector()
    template: Template = msgspec.field(default_factory=_no_template)
    podFailurePolicy: FailurePolicy | None = None
    successPolicy: SuccessPolicy | None = None
    podReplacementPolicy: str = ""
    managedBy: str | None = None


class Job(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: JobSpec = JobSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class CronJobSpec(View, frozen=True, gc=False):
    schedule: str = ""
    timeZone: str | None = None
    startingDeadlineSeconds: int | None = None
    concurrencyPolicy: str = "Allow"
    suspend: bool = False
    jobTemplate: Template = msgspec.field(default_factory=_no_template)
    successfulJobsHistoryLimit: int | None = 3
    failedJobsHistoryLimit: int | None = 1


class CronJob(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: CronJobSpec = CronJobSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class HorizontalPodAutoscaler(View, frozen=True, gc=False):
    """autoscaling/v2; the spec's many shapes are read where they are judged."""

    metadata: Meta = Meta()
    spec: dict[str, Any] = msgspec.field(default_factory=nothing)
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


def finished_at(status: dict[str, Any]) -> datetime | None:
    """When a job's Complete or Failed condition became true."""
    for entry in status.get("conditions") or ():
        if entry.get("type") in ("Complete", "Failed") and entry.get("status") == "True":
            text = entry.get("lastTransitionTime")
            return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    return None
