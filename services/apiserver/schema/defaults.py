"""Defaults equal to upstream's, for every built-in kind that has any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.apiserver.schema.defaulting import cluster, core, pods, workloads
from services.apiserver.schema.definitions import KindLike

Default = Callable[[dict[str, Any]], None]

_BY_GROUP: dict[str, dict[str, Default]] = {
    "": {
        "Pod": pods.pod,
        "PodTemplate": core.pod_template,
        "ReplicationController": core.replication_controller,
        "Service": core.service,
        "Endpoints": core.endpoints,
        "Secret": core.secret,
        "Namespace": core.namespace,
        "Node": core.node,
        "PersistentVolume": core.persistent_volume,
        "PersistentVolumeClaim": core.persistent_volume_claim,
        "LimitRange": core.limit_range,
        "ResourceQuota": core.resource_quota,
        "Event": core.event,
    },
    "apps": {
        "Deployment": workloads.deployment,
        "ReplicaSet": workloads.replica_set,
        "DaemonSet": workloads.daemon_set,
        "StatefulSet": workloads.stateful_set,
        "ControllerRevision": workloads.controller_revision,
    },
    "batch": {"Job": workloads.job, "CronJob": workloads.cron_job},
    "storage.k8s.io": {
        "StorageClass": cluster.storage_class,
        "CSIDriver": cluster.csi_driver,
        "VolumeAttachment": cluster.volume_attachment,
    },
    "networking.k8s.io": {
        "Ingress": cluster.ingress,
        "IngressClass": cluster.ingress_class,
        "NetworkPolicy": cluster.network_policy,
        "ServiceCIDR": cluster.with_status,
    },
    "discovery.k8s.io": {"EndpointSlice": cluster.endpoint_slice},
    "rbac.authorization.k8s.io": {
        "Role": cluster.role,
        "ClusterRole": cluster.role,
        "RoleBinding": cluster.binding,
        "ClusterRoleBinding": cluster.binding,
    },
    "policy": {"PodDisruptionBudget": cluster.disruption_budget},
    "autoscaling": {"HorizontalPodAutoscaler": cluster.autoscaler_v2},
    "certificates.k8s.io": {"CertificateSigningRequest": cluster.signing_request},
    "admissionregistration.k8s.io": {
        "MutatingWebhookConfiguration": cluster.webhooks,
        "ValidatingWebhookConfiguration": cluster.webhooks,
        "ValidatingAdmissionPolicy": cluster.admission_policy,
        "MutatingAdmissionPolicy": cluster.admission_policy,
        "ValidatingAdmissionPolicyBinding": cluster.admission_policy_binding,
        "MutatingAdmissionPolicyBinding": cluster.admission_policy_binding,
    },
    "scheduling.k8s.io": {"PriorityClass": cluster.priority_class},
    "apiextensions.k8s.io": {"CustomResourceDefinition": cluster.custom_resource_definition},
    "apiregistration.k8s.io": {"APIService": cluster.api_service},
    "flowcontrol.apiserver.k8s.io": {
        "FlowSchema": cluster.flow_schema,
        "PriorityLevelConfiguration": cluster.priority_level,
    },
    "resource.k8s.io": {
        "ResourceClaim": cluster.device_claim,
        "ResourceClaimTemplate": cluster.device_claim_template,
    },
}


def apply_defaults(kind: KindLike, obj: dict[str, Any]) -> dict[str, Any]:
    """Fill in, in place, what the object leaves out; the same object is returned.

    The object must have passed `intake.take_in`. Applying twice changes nothing.
    """
    if kind.group == "autoscaling" and kind.version == "v1":
        default: Default | None = cluster.autoscaler_v1 if kind.kind == "HorizontalPodAutoscaler" else None
    else:
        default = _BY_GROUP.get(kind.group, {}).get(kind.kind)
    if default is not None:
        default(obj)
    return obj
