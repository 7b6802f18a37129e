"""What a single field may hold beyond its type: enumerations, ranges and formats that the OpenAPI definitions don't
say.

Each constraint exists twice on purpose: as a JSON-schema fragment, which the compiled validator judges at no cost, and
as a check that words the fault as upstream does, which only runs over an object that failed. `CONSTRAINTS` is the
table: short definition name, then field. Rules over several fields are in `rules/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names


@dataclasses.dataclass(frozen=True, slots=True)
class Constraint:
    """`fragment` is JSON schema for the value; `check(value, path)` words what is wrong with it."""

    fragment: dict[str, Any]
    check: Callable[[Any, str], list[Cause]]


def one_of(*supported: str) -> Constraint:
    """An enumeration. The empty string means absent, as in Go."""

    def check(value: Any, path: str) -> list[Cause]:
        return [] if value in supported or value == "" else [causes.not_supported(path, value, supported)]

    return Constraint({"enum": [*supported, ""]}, check)


def each_of(*supported: str) -> Constraint:
    """A list of an enumeration's values."""

    def check(value: Any, path: str) -> list[Cause]:
        return [
            causes.not_supported(f"{path}[{i}]", one, supported) for i, one in enumerate(value) if one not in supported
        ]

    return Constraint({"items": {"enum": list(supported)}}, check)


def at_least(minimum: int) -> Constraint:
    """A lower bound, included."""
    detail = f"must be greater than or equal to {minimum}" if minimum == 0 else f"must be greater than {minimum - 1}"

    def check(value: Any, path: str) -> list[Cause]:
        return [] if value >= minimum else [causes.invalid(path, value, detail)]

    return Constraint({"minimum": minimum}, check)


def between(low: int, high: int) -> Constraint:
    """A range, both ends included."""

    def check(value: Any, path: str) -> list[Cause]:
        return (
            []
            if low <= value <= high
            else [causes.invalid(path, value, f"must be between {low} and {high}, inclusive")]
        )

    return Constraint({"minimum": low, "maximum": high}, check)


def matches(syntax: names.Check, pattern: str, length_max: int) -> Constraint:
    """A string of a syntax; empty means absent (a required field reports that itself)."""

    def check(value: Any, path: str) -> list[Cause]:
        return [causes.invalid(path, value, problem) for problem in syntax(value)] if value else []

    return Constraint({"anyOf": [{"enum": [""]}, {"pattern": pattern, "maxLength": length_max}]}, check)


def _absolute(value: Any, path: str) -> list[Cause]:
    return [] if not value or value.startswith("/") else [causes.invalid(path, value, "must be an absolute path")]


def _labels(value: Any, path: str) -> list[Cause]:
    """Labels, their keys and values: both faults are reported against the map, as upstream does."""
    found: list[Cause] = []
    for key, text in value.items():
        found += [causes.invalid(path, key, problem) for problem in names.qualified_name(key)]
        found += [causes.invalid(path, text, problem) for problem in names.label_value(text)]
    return found


def _qualified_keys(value: Any, path: str) -> list[Cause]:
    return [causes.invalid(path, key, problem) for key in value for problem in names.qualified_name(key.lower())]


LABEL = matches(names.dns_label, names.DNS_LABEL_PATTERN, 63)
SUBDOMAIN = matches(names.dns_subdomain, names.DNS_SUBDOMAIN_PATTERN, 253)
QUALIFIED = matches(names.qualified_name, names.QUALIFIED_PATTERN, 317)
CONFIG_KEY = Constraint(
    {
        "pattern": r"^(|\.|[-_a-zA-Z0-9][-._a-zA-Z0-9]*|\.[-_a-zA-Z0-9][-._a-zA-Z0-9]*)$",
        "maxLength": 253,
        "not": {"enum": ["."]},
    },
    lambda value, path: [causes.invalid(path, value, problem) for problem in names.config_key(value)] if value else [],
)
ENV_NAME = Constraint(
    {"pattern": r"^[ -<>-~]*$"},
    lambda value, path: [causes.invalid(path, value, problem) for problem in names.env_name(value)] if value else [],
)
PORT_NAME = Constraint(
    {
        "anyOf": [
            {"enum": [""]},
            {"pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 15, "allOf": [{"pattern": "[a-z]"}]},
        ]
    },
    lambda value, path: [causes.invalid(path, value, problem) for problem in names.port_name(value)] if value else [],
)
# A prefix may have 253 characters, which these patterns don't say: `rules/metadata` looks at longer keys.
LABELS = Constraint(
    {
        "patternProperties": {names.QUALIFIED_PATTERN: {"type": "string", "pattern": names.LABEL_VALUE_PATTERN}},
        "additionalProperties": False,
    },
    _labels,
)
ANNOTATIONS = Constraint(
    {
        "patternProperties": {names.QUALIFIED_PATTERN.replace("a-z0-9", "a-zA-Z0-9"): {}},
        "additionalProperties": False,
    },
    _qualified_keys,
)
ABSOLUTE_PATH = Constraint({"pattern": "^(/|$)"}, _absolute)
PORT = between(1, 65535)
PORT_OR_ZERO = between(0, 65535)
NOT_NEGATIVE = at_least(0)
POSITIVE = at_least(1)
PROTOCOL = one_of("TCP", "UDP", "SCTP")
CONDITION_STATUS = one_of("True", "False", "Unknown")
POLICY = one_of("Cluster", "Local")
OPERATOR_LABEL = one_of("In", "NotIn", "Exists", "DoesNotExist")
ID_32 = between(0, 2**31 - 1)

_CONTAINER: dict[str, Constraint] = {
    "name": LABEL,
    "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": one_of("File", "FallbackToLogsOnError"),
}
_READY: dict[str, Constraint] = {"minReadySeconds": NOT_NEGATIVE}
_REPLICAS: dict[str, Constraint] = {**_READY, "replicas": NOT_NEGATIVE}
_HISTORY: dict[str, Constraint] = {"revisionHistoryLimit": NOT_NEGATIVE}
_SUBJECT_KINDS = one_of("User", "Group", "ServiceAccount")
_WEBHOOK: dict[str, Constraint] = {
    "failurePolicy": one_of("Ignore", "Fail"),
    "matchPolicy": one_of("Exact", "Equivalent"),
    "timeoutSeconds": between(1, 30),
    "sideEffects": one_of("None", "NoneOnDryRun", "Unknown", "Some"),
}
_ACCESS_MODES = each_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")

CONSTRAINTS: dict[str, dict[str, Constraint]] = {
    "meta.v1.ObjectMeta": {"labels": LABELS, "annotations": ANNOTATIONS, "generation": NOT_NEGATIVE},
    "meta.v1.LabelSelectorRequirement": {"operator": OPERATOR_LABEL, "key": QUALIFIED},
    "meta.v1.LabelSelector": {"matchLabels": LABELS},
    "meta.v1.Condition": {"status": CONDITION_STATUS},
    "core.v1.Container": _CONTAINER,
    "core.v1.EphemeralContainer": _CONTAINER,
    "core.v1.ContainerPort": {"containerPort": PORT, "hostPort": PORT_OR_ZERO, "protocol": PROTOCOL, "name": PORT_NAME},
    "core.v1.EnvVar": {"name": ENV_NAME},
    "core.v1.ConfigMapKeySelector": {"key": CONFIG_KEY},
    "core.v1.SecretKeySelector": {"key": CONFIG_KEY},
    "core.v1.VolumeMount": {
        "mountPropagation": one_of("None", "HostToContainer", "Bidirectional"),
        "recursiveReadOnly": one_of("Disabled", "IfPossible", "Enabled"),
    },
    "core.v1.Probe": {
        "initialDelaySeconds": NOT_NEGATIVE,
        "timeoutSeconds": NOT_NEGATIVE,
        "periodSeconds": NOT_NEGATIVE,
        "successThreshold": NOT_NEGATIVE,
        "failureThreshold": NOT_NEGATIVE,
        "terminationGracePeriodSeconds": POSITIVE,
    },
    "core.v1.HTTPGetAction": {"scheme": one_of("HTTP", "HTTPS")},
    "core.v1.GRPCAction": {"port": PORT},
    "core.v1.SleepAction": {"seconds": NOT_NEGATIVE},
    "core.v1.PodSpec": {
        "restartPolicy": one_of("Always", "OnFailure", "Never"),
        "dnsPolicy": one_of("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
        "preemptionPolicy": one_of("PreemptLowerPriority", "Never"),
        "terminationGracePeriodSeconds": NOT_NEGATIVE,
        "activeDeadlineSeconds": between(1, 2**31 - 1),
        "hostname": LABEL,
        "subdomain": LABEL,
        "nodeName": SUBDOMAIN,
        "serviceAccountName": SUBDOMAIN,
        "schedulerName": QUALIFIED,
        "priorityClassName": SUBDOMAIN,
        "runtimeClassName": SUBDOMAIN,
        "nodeSelector": LABELS,
    },
    "core.v1.PodOS": {"name": one_of("linux", "windows")},
    "core.v1.Volume": {"name": LABEL},
    "core.v1.HostPathVolumeSource": {
        "type": one_of("DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice")
    },
    "core.v1.ConfigMapVolumeSource": {"defaultMode": between(0, 0o777)},
    "core.v1.SecretVolumeSource": {"defaultMode": between(0, 0o777)},
    "core.v1.ProjectedVolumeSource": {"defaultMode": between(0, 0o777)},
    "core.v1.DownwardAPIVolumeSource": {"defaultMode": between(0, 0o777)},
    "core.v1.KeyToPath": {"mode": between(0, 0o777)},
    "core.v1.SeccompProfile": {"type": one_of("Unconfined", "RuntimeDefault", "Localhost")},
    "core.v1.AppArmorProfile": {"type": one_of("Unconfined", "RuntimeDefault", "Localhost")},
    "core.v1.PodSecurityContext": {
        "runAsUser": ID_32,
        "runAsGroup": ID_32,
        "fsGroup": ID_32,
        "fsGroupChangePolicy": one_of("OnRootMismatch", "Always"),
        "supplementalGroupsPolicy": one_of("Merge", "Strict"),
    },
    "core.v1.SecurityContext": {"runAsUser": ID_32, "runAsGroup": ID_32, "procMount": one_of("Default", "Unmasked")},
    "core.v1.Toleration": {"effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"), "key": QUALIFIED},
    "core.v1.Taint": {"effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"), "key": QUALIFIED},
    "core.v1.NodeSelectorRequirement": {"operator": one_of("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")},
    "core.v1.PreferredSchedulingTerm": {"weight": between(1, 100)},
    "core.v1.WeightedPodAffinityTerm": {"weight": between(1, 100)},
    "core.v1.TopologySpreadConstraint": {
        "maxSkew": POSITIVE,
        "minDomains": POSITIVE,
        "whenUnsatisfiable": one_of("DoNotSchedule", "ScheduleAnyway"),
        "nodeAffinityPolicy": one_of("Honor", "Ignore"),
        "nodeTaintsPolicy": one_of("Honor", "Ignore"),
    },
    "core.v1.ServiceSpec": {
        "type": one_of("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
        "sessionAffinity": one_of("ClientIP", "None"),
        "internalTrafficPolicy": POLICY,
        "externalTrafficPolicy": POLICY,
        "ipFamilyPolicy": one_of("SingleStack", "PreferDualStack", "RequireDualStack"),
        "ipFamilies": each_of("IPv4", "IPv6"),
        "selector": LABELS,
        "healthCheckNodePort": PORT_OR_ZERO,
    },
    "core.v1.ServicePort": {"port": PORT, "protocol": PROTOCOL, "name": LABEL, "nodePort": PORT_OR_ZERO},
    "core.v1.ClientIPConfig": {"timeoutSeconds": between(1, 86400)},
    "core.v1.EndpointPort": {"port": PORT_OR_ZERO, "protocol": PROTOCOL, "name": LABEL},
    "core.v1.ReplicationControllerSpec": _REPLICAS,
    "core.v1.PersistentVolumeSpec": {
        "persistentVolumeReclaimPolicy": one_of("Retain", "Delete", "Recycle"),
        "volumeMode": one_of("Filesystem", "Block"),
        "accessModes": _ACCESS_MODES,
    },
    "core.v1.PersistentVolumeClaimSpec": {"volumeMode": one_of("Filesystem", "Block"), "accessModes": _ACCESS_MODES},
    "core.v1.PodCondition": {"status": CONDITION_STATUS},
    "core.v1.NodeCondition": {"status": CONDITION_STATUS},
    "core.v1.ResourceQuotaSpec": {
        "scopes": each_of(
            "Terminating",
            "NotTerminating",
            "BestEffort",
            "NotBestEffort",
            "PriorityClass",
            "CrossNamespacePodAffinity",
            "VolumeAttributesClass",
        )
    },
    "core.v1.ScopedResourceSelectorRequirement": {"operator": OPERATOR_LABEL},
    "apps.v1.DeploymentSpec": {**_REPLICAS, **_HISTORY, "progressDeadlineSeconds": NOT_NEGATIVE},
    "apps.v1.DeploymentStrategy": {"type": one_of("Recreate", "RollingUpdate")},
    "apps.v1.ReplicaSetSpec": _REPLICAS,
    "apps.v1.DaemonSetSpec": {**_READY, **_HISTORY},
    "apps.v1.DaemonSetUpdateStrategy": {"type": one_of("OnDelete", "RollingUpdate")},
    "apps.v1.StatefulSetSpec": {**_REPLICAS, **_HISTORY, "podManagementPolicy": one_of("OrderedReady", "Parallel")},
    "apps.v1.StatefulSetUpdateStrategy": {"type": one_of("OnDelete", "RollingUpdate")},
    "apps.v1.RollingUpdateStatefulSetStrategy": {"partition": NOT_NEGATIVE},
    "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy": {
        "whenDeleted": one_of("Delete", "Retain"),
        "whenScaled": one_of("Delete", "Retain"),
    },
    "apps.v1.StatefulSetOrdinals": {"start": NOT_NEGATIVE},
    "batch.v1.JobSpec": {
        "parallelism": NOT_NEGATIVE,
        "completions": NOT_NEGATIVE,
        "backoffLimit": NOT_NEGATIVE,
        "backoffLimitPerIndex": NOT_NEGATIVE,
        "maxFailedIndexes": NOT_NEGATIVE,
        "activeDeadlineSeconds": NOT_NEGATIVE,
        "ttlSecondsAfterFinished": NOT_NEGATIVE,
        "completionMode": one_of("Indexed", "NonIndexed"),
        "podReplacementPolicy": one_of("Failed", "TerminatingOrFailed"),
    },
    "batch.v1.CronJobSpec": {
        "concurrencyPolicy": one_of("Allow", "Forbid", "Replace"),
        "startingDeadlineSeconds": NOT_NEGATIVE,
        "successfulJobsHistoryLimit": NOT_NEGATIVE,
        "failedJobsHistoryLimit": NOT_NEGATIVE,
    },
    "batch.v1.PodFailurePolicyRule": {"action": one_of("Count", "FailIndex", "FailJob", "Ignore")},
    "batch.v1.PodFailurePolicyOnExitCodesRequirement": {"operator": one_of("In", "NotIn")},
    "networking.v1.HTTPIngressPath": {"pathType": one_of("Exact", "Prefix", "ImplementationSpecific")},
    "networking.v1.NetworkPolicySpec": {"policyTypes": each_of("Ingress", "Egress")},
    "networking.v1.NetworkPolicyPort": {"protocol": PROTOCOL},
    "discovery.v1.EndpointSlice": {"addressType": one_of("IPv4", "IPv6", "FQDN")},
    "discovery.v1.EndpointPort": {"protocol": PROTOCOL, "port": PORT_OR_ZERO, "name": LABEL},
    "policy.v1.PodDisruptionBudgetSpec": {"unhealthyPodEvictionPolicy": one_of("AlwaysAllow", "IfHealthyBudget")},
    "rbac.v1.Subject": {"kind": _SUBJECT_KINDS},
    "rbac.v1.RoleRef": {"kind": one_of("Role", "ClusterRole")},
    "storage.v1.StorageClass": {
        "reclaimPolicy": one_of("Delete", "Retain"),
        "volumeBindingMode": one_of("Immediate", "WaitForFirstConsumer"),
    },
    "storage.v1.CSIDriverSpec": {"fsGroupPolicy": one_of("File", "None", "ReadWriteOnceWithFSType")},
    "scheduling.v1.PriorityClass": {"preemptionPolicy": one_of("PreemptLowerPriority", "Never")},
    "autoscaling.v2.HorizontalPodAutoscalerSpec": {"maxReplicas": POSITIVE, "minReplicas": POSITIVE},
    "autoscaling.v1.HorizontalPodAutoscalerSpec": {"maxReplicas": POSITIVE, "minReplicas": POSITIVE},
    "autoscaling.v2.MetricSpec": {"type": one_of("ContainerResource", "External", "Object", "Pods", "Resource")},
    "autoscaling.v2.MetricTarget": {"type": one_of("AverageValue", "Utilization", "Value")},
    "autoscaling.v2.HPAScalingRules": {
        "stabilizationWindowSeconds": between(0, 3600),
        "selectPolicy": one_of("Disabled", "Max", "Min"),
    },
    "autoscaling.v2.HPAScalingPolicy": {
        "type": one_of("Percent", "Pods"),
        "value": POSITIVE,
        "periodSeconds": between(1, 1800),
    },
    "autoscaling.v1.ScaleSpec": {"replicas": NOT_NEGATIVE},
    "admissionregistration.v1.MutatingWebhook": {**_WEBHOOK, "reinvocationPolicy": one_of("Never", "IfNeeded")},
    "admissionregistration.v1.ValidatingWebhook": _WEBHOOK,
    "admissionregistration.v1.RuleWithOperations": {
        "operations": each_of("*", "CREATE", "UPDATE", "DELETE", "CONNECT"),
        "scope": one_of("*", "Cluster", "Namespaced"),
    },
    "admissionregistration.v1.ValidatingAdmissionPolicySpec": {"failurePolicy": one_of("Fail", "Ignore")},
    "admissionregistration.v1.MutatingAdmissionPolicySpec": {
        "failurePolicy": one_of("Fail", "Ignore"),
        "reinvocationPolicy": one_of("Never", "IfNeeded"),
    },
    "admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec": {
        "validationActions": each_of("Audit", "Deny", "Warn")
    },
    "coordination.v1.LeaseSpec": {"leaseDurationSeconds": POSITIVE, "leaseTransitions": NOT_NEGATIVE},
    "apiextensions.v1.CustomResourceDefinitionSpec": {"scope": one_of("Cluster", "Namespaced")},
    "apiextensions.v1.CustomResourceConversion": {"strategy": one_of("None", "Webhook")},
}

# Required by the definitions, because Go always writes them, but not by validation: leaving them out means their zero
# value.
ZERO_IS_FINE: dict[str, frozenset[str]] = {
    "core.v1.HTTPHeader": frozenset({"value"}),
    "core.v1.Sysctl": frozenset({"value"}),
    "core.v1.ISCSIVolumeSource": frozenset({"lun"}),
    "core.v1.ISCSIPersistentVolumeSource": frozenset({"lun"}),
    "core.v1.Event": frozenset({"metadata", "involvedObject"}),
    "core.v1.LimitRangeSpec": frozenset({"limits"}),
    "core.v1.ContainerStatus": frozenset({"name", "ready", "restartCount", "image", "imageID"}),
    "core.v1.ContainerStateTerminated": frozenset({"exitCode"}),
    "core.v1.DaemonEndpoint": frozenset({"Port"}),
    "core.v1.EndpointPort": frozenset({"port"}),
    "core.v1.NodeSystemInfo": frozenset(
        {
            "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion", "operatingSystem", "architecture",
        }
    ),
    "core.v1.SleepAction": frozenset({"seconds"}),
    "events.v1.Event": frozenset({"eventTime"}),
    "events.v1.EventSeries": frozenset({"count", "lastObservedTime"}),
    "apiextensions.v1.CustomResourceDefinitionVersion": frozenset({"served", "storage"}),
    "storage.v1.CSINodeSpec": frozenset({"drivers"}),
    "storage.v1.VolumeAttachmentStatus": frozenset({"attached"}),
    "discovery.v1.EndpointSlice": frozenset({"endpoints"}),
    "authorization.v1.SubjectAccessReviewStatus": frozenset({"allowed"}),
    "authentication.v1.TokenReviewSpec": frozenset({"token"}),
    "authorization.v1.SelfSubjectRulesReview": frozenset({"spec"}),
    "authorization.v1.SelfSubjectAccessReview": frozenset({"spec"}),
    "apps.v1.ControllerRevision": frozenset({"revision"}),
    "meta.v1.Condition": frozenset({"message", "lastTransitionTime"}),
    "apps.v1.DaemonSetSpec": frozenset({"template"}),
    "apps.v1.DeploymentSpec": frozenset({"template"}),
    "apps.v1.StatefulSetSpec": frozenset({"template", "serviceName"}),
    "batch.v1.JobSpec": frozenset({"template"}),
    "batch.v1.CronJobSpec": frozenset({"jobTemplate"}),
    "batch.v1.PodFailurePolicyOnPodConditionsPattern": frozenset({"status"}),
    "core.v1.PersistentVolumeClaimTemplate": frozenset({"spec"}),
    "rbac.v1.ClusterRole": frozenset({"rules"}),
}  # fmt: skip

# What upstream adds to "Required value" for some fields.
REQUIRED_DETAIL: dict[tuple[str, str], str] = {
    ("rbac.v1.PolicyRule", "verbs"): "verbs must contain at least one value",
    ("core.v1.PodAffinityTerm", "topologyKey"): "can not be empty",
    ("core.v1.NodeSelector", "nodeSelectorTerms"): "must have at least one node selector term",
    ("batch.v1.CronJobSpec", "schedule"): "",
    ("networking.v1.HTTPIngressPath", "pathType"): "pathType must be specified",
}


def short_name(definition: str) -> str:
    """`core.v1.Pod` of `io.k8s.api.core.v1.Pod`: the last three parts."""
    return ".".join(definition.rsplit(".", 3)[1:])


def is_observed(definition: str) -> bool:
    """Is this a part of a status, which components write and nobody requires fields of?"""
    return definition.endswith(("Status", "List")) or short_name(definition) == "meta.v1.WatchEvent"
