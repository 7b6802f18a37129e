"""Is an object right? Structure first, then metadata, then its kind's rules; for a change, what may not change too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from machinery.api.errors import CAUSES_MAX, Cause
from services.apiserver.schema.definitions import KindLike
from services.apiserver.schema.rules import (
    access,
    admission,
    config,
    custom_resources,
    devices,
    flow,
    metadata,
    network,
    pods,
    services,
    storage,
    workloads,
)
from services.apiserver.schema.structure import Sort, each_fault, is_sound

Obj = dict[str, Any]
Create = Callable[[Obj], list[Cause]]
Update = Callable[[Obj, Obj], list[Cause]]

_RBAC = "rbac.authorization.k8s.io"
_DEVICES = "resource.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

_CREATE: dict[tuple[str, str], Create] = {
    ("", "Pod"): pods.create,
    ("", "PodTemplate"): pods.template_object,
    ("", "Service"): services.create,
    ("", "Endpoints"): services.endpoints,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "ConfigMap"): config.config_map,
    ("", "Secret"): config.secret,
    ("", "Namespace"): config.namespace,
    ("", "Node"): config.node,
    ("", "ResourceQuota"): config.resource_quota,
    ("", "LimitRange"): config.limit_range,
    ("", "Event"): config.event,
    ("", "PersistentVolume"): storage.volume,
    ("", "PersistentVolumeClaim"): storage.claim,
    ("events.k8s.io", "Event"): config.new_event,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("apps", "ControllerRevision"): workloads.controller_revision,
    ("batch", "Job"): workloads.job,
    ("batch", "CronJob"): workloads.cron_job,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("networking.k8s.io", "Ingress"): network.ingress,
    ("networking.k8s.io", "IngressClass"): network.ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): network.network_policy,
    ("discovery.k8s.io", "EndpointSlice"): services.endpoint_slice,
    ("policy", "PodDisruptionBudget"): config.disruption_budget,
    ("scheduling.k8s.io", "PriorityClass"): config.priority_class,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): flow.schema,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): flow.level,
    (_RBAC, "Role"): functools.partial(access.role, namespaced=True),
    (_RBAC, "ClusterRole"): functools.partial(access.role, namespaced=False),
    (_RBAC, "RoleBinding"): functools.partial(access.binding, namespaced=True),
    (_RBAC, "ClusterRoleBinding"): functools.partial(access.binding, namespaced=False),
    ("certificates.k8s.io", "CertificateSigningRequest"): access.signing_request,
    ("autoscaling", "HorizontalPodAutoscaler"): access.autoscaler,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): custom_resources.create,
    (_DEVICES, "ResourceClaim"): devices.claim,
    (_DEVICES, "ResourceClaimTemplate"): devices.template,
    (_DEVICES, "DeviceClass"): devices.device_class,
    (_DEVICES, "DeviceTaintRule"): devices.taint_rule,
    (_ADMISSION, "MutatingWebhookConfiguration"): admission.webhooks,
    (_ADMISSION, "ValidatingWebhookConfiguration"): admission.webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): admission.admission_policy,
    (_ADMISSION, "MutatingAdmissionPolicy"): admission.mutating_admission_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): admission.admission_policy_binding,
}

# Rules of a change. A kind named here judges the whole change; `_FROZEN` kinds are judged as new objects too.
_UPDATE: dict[tuple[str, str], Update] = {
    ("", "Pod"): pods.update,
    ("", "Service"): services.update,
    ("", "ConfigMap"): config.update_config_map,
    ("", "Secret"): config.update_secret,
    ("", "Node"): config.update_node,
    ("", "PersistentVolumeClaim"): storage.update_claim,
    ("discovery.k8s.io", "EndpointSlice"): services.update_endpoint_slice,
    ("networking.k8s.io", "IngressClass"): network.update_ingress_class,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): custom_resources.update,
}
_FROZEN: dict[tuple[str, str], Update] = {
    ("", "PersistentVolume"): storage.update_volume,
    ("", "ResourceQuota"): config.update_resource_quota,
    ("apps", "Deployment"): workloads.update_selector,
    ("apps", "ReplicaSet"): workloads.update_selector,
    ("apps", "DaemonSet"): workloads.update_selector,
    ("apps", "StatefulSet"): workloads.update_stateful_set,
    ("apps", "ControllerRevision"): workloads.update_controller_revision,
    ("batch", "Job"): workloads.update_job,
    ("storage.k8s.io", "StorageClass"): storage.update_storage_class,
    ("storage.k8s.io", "VolumeAttachment"): storage.update_attachment,
    ("scheduling.k8s.io", "PriorityClass"): config.update_priority_class,
    (_DEVICES, "ResourceClaim"): devices.update_spec,
    (_DEVICES, "ResourceClaimTemplate"): devices.update_spec,
    (_RBAC, "RoleBinding"): access.update_binding,
    (_RBAC, "ClusterRoleBinding"): access.update_binding,
    ("certificates.k8s.io", "CertificateSigningRequest"): access.update_signing_request,
}


def _structural(kind: KindLike, obj: Obj) -> tuple[list[Cause], bool]:
    """Causes of structural faults, and whether the object's types are good enough for the rules to read it. Once there
    are as many causes as anybody is told of, the rest of the object is not looked at, and not said to be readable."""
    if is_sound(kind, obj):
        return [], True
    found: list[Cause] = []
    readable = True
    for fault in each_fault(kind, obj):
        if len(found) >= CAUSES_MAX:
            return found, False
        if fault.cause is not None:
            found.append(fault.cause)
        elif fault.sort is Sort.TYPE:
            readable = False
            found.append(Cause("FieldValueTypeInvalid", f"Invalid value: {fault.message}", fault.field))
    return found, readable


def _distinct(found: Iterable[Cause]) -> list[Cause]:
    """Each field's fault of one sort once: structure and a rule may have found the same."""
    seen: dict[tuple[str, str, str], Cause] = {}
    required: set[str] = set()
    for cause in found:
        if cause.reason == "FieldValueRequired":
            if cause.field in required:
                continue
            required.add(cause.field)
        seen.setdefault((cause.field, cause.reason, cause.message), cause)
    return list(seen.values())


def validate_create(kind: KindLike, obj: Obj) -> list[Cause]:
    """Everything that is wrong with a new object of a built-in kind (defaulted, named, admitted); empty if nothing."""
    found, readable = _structural(kind, obj)
    if readable:
        found = metadata.create(kind, obj.get("metadata") or {}, namespaced=getattr(kind, "namespaced", None)) + found
        rules = _CREATE.get((kind.group, kind.kind))
        if rules is not None:
            found += rules(obj)
    return _distinct(found) if found else found


def validate_update(kind: KindLike, new: Obj, old: Obj) -> list[Cause]:
    """Everything that is wrong with a changed object, what may not change included."""
    found, readable = _structural(kind, new)
    if readable:
        found = metadata.update(kind, new.get("metadata") or {}, old.get("metadata") or {}) + found
        found += _changes((kind.group, kind.kind), new, old)
    return _distinct(found) if found else found


def _changes(key: tuple[str, str], new: Obj, old: Obj) -> list[Cause]:
    whole = _UPDATE.get(key)
    if whole is not None:
        return whole(new, old)
    create = _CREATE.get(key)
    # A spec that did not change was judged when it did.
    same = "spec" in new and new["spec"] == old.get("spec")
    found = create(new) if create is not None and not same else []
    frozen = _FROZEN.get(key)
    return found + frozen(new, old) if frozen is not None else found


def validate_status_update(kind: KindLike, new: Obj, old: Obj) -> list[Cause]:
    """A change through the status subresource: structure and metadata. What is still the very object of `old`, as the
    spec is, was judged when it was written."""
    changed = {name: value for name, value in new.items() if value is not old.get(name)}
    found, readable = ([], True) if is_sound(kind, changed) else _structural(kind, new)
    if readable:
        found = metadata.update(kind, new.get("metadata") or {}, old.get("metadata") or {}) + found
    return _distinct(found) if found else found


def validate_ephemeral_containers(kind: KindLike, new: Obj, old: Obj) -> list[Cause]:
    """A Pod changed through its ephemeralcontainers subresource."""
    found, readable = _structural(kind, new)
    return _distinct([*found, *(pods.update_ephemeral_containers(new, old) if readable else ())])


def validate_resize(kind: KindLike, new: Obj, old: Obj) -> list[Cause]:
    """A Pod changed through its resize subresource."""
    found, readable = _structural(kind, new)
    return _distinct([*found, *(pods.update_resize(new, old) if readable else ())])
