"""Every kind that a v1.37 cluster serves by default, as constants: `kinds.POD`, `kinds.DEPLOYMENT`.

A `Kind` is an identity (group, version, kind, plural), cheap to import and to hash; its model class is imported when
it is first asked for. A custom kind is a `Kind` that a component makes itself; it has no model and its objects are
plain dicts.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from protos.cutaway.v1 import object_pb2


class Kind(msgspec.Struct, frozen=True, cache_hash=True):
    """The identity of a kind at one version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects carry it: "v1", "apps/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As error messages and the store name it: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_resource(self) -> str:
        """The same as `resource`, by upstream's name for it."""
        return self.resource

    @property
    def singular(self) -> str:
        """Lower-case singular: "pod"."""
        return self.kind.lower()

    @property
    def ref(self) -> object_pb2.ResourceRef:
        """The kind as the contracts name it. One shared message: do not change it."""
        return _ref(self)

    @property
    def model(self) -> type[Any] | None:
        """The model class (a msgspec Struct such as `lightkube.models.core_v1.Pod`), or None for a custom kind."""
        return _model(self.group, self.version, self.kind)

    def __str__(self) -> str:
        return f"{self.kind}.{self.version}.{self.group}" if self.group else f"{self.kind}.{self.version}"


@cache
def _ref(kind: Kind) -> object_pb2.ResourceRef:
    from protos.cutaway.v1 import object_pb2

    return object_pb2.ResourceRef(group=kind.group, version=kind.version, resource=kind.plural)


@cache
def _model(group: str, version: str, kind: str) -> type[Any] | None:
    if (group, version, kind) not in _BY_KIND:
        return None
    # The model modules are named for the first label of the group: rbac.authorization.k8s.io/v1 is rbac_v1.
    module = importlib.import_module(f"lightkube.models.{group.split('.')[0] or 'core'}_{version}")
    model: type[Any] = getattr(module, kind)
    return model


_BY_KIND: dict[tuple[str, str, str], Kind] = {}
_BY_PLURAL: dict[tuple[str, str, str], Kind] = {}


def _builtin(group: str, version: str, kind: str, plural: str, *, namespaced: bool = True) -> Kind:
    out = Kind(group, version, kind, plural, namespaced)
    _BY_KIND[group, version, kind] = out
    _BY_PLURAL[group, version, plural] = out
    return out


# core
BINDING = _builtin("", "v1", "Binding", "bindings")
COMPONENT_STATUS = _builtin("", "v1", "ComponentStatus", "componentstatuses", namespaced=False)
CONFIG_MAP = _builtin("", "v1", "ConfigMap", "configmaps")
ENDPOINTS = _builtin("", "v1", "Endpoints", "endpoints")
EVENT = _builtin("", "v1", "Event", "events")
LIMIT_RANGE = _builtin("", "v1", "LimitRange", "limitranges")
NAMESPACE = _builtin("", "v1", "Namespace", "namespaces", namespaced=False)
NODE = _builtin("", "v1", "Node", "nodes", namespaced=False)
PERSISTENT_VOLUME = _builtin("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False)
PERSISTENT_VOLUME_CLAIM = _builtin("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
POD = _builtin("", "v1", "Pod", "pods")
POD_TEMPLATE = _builtin("", "v1", "PodTemplate", "podtemplates")
REPLICATION_CONTROLLER = _builtin("", "v1", "ReplicationController", "replicationcontrollers")
RESOURCE_QUOTA = _builtin("", "v1", "ResourceQuota", "resourcequotas")
SECRET = _builtin("", "v1", "Secret", "secrets")
SERVICE = _builtin("", "v1", "Service", "services")
SERVICE_ACCOUNT = _builtin("", "v1", "ServiceAccount", "serviceaccounts")

# admissionregistration.k8s.io
MUTATING_ADMISSION_POLICY = _builtin(
    "admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", namespaced=False
)
MUTATING_ADMISSION_POLICY_BINDING = _builtin(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybindings",
    namespaced=False,
)
MUTATING_WEBHOOK_CONFIGURATION = _builtin(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    namespaced=False,
)
VALIDATING_ADMISSION_POLICY = _builtin(
    "admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False
)
VALIDATING_ADMISSION_POLICY_BINDING = _builtin(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    namespaced=False,
)
VALIDATING_WEBHOOK_CONFIGURATION = _builtin(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
)

# apiextensions.k8s.io
CUSTOM_RESOURCE_DEFINITION = _builtin(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)

# apiregistration.k8s.io
API_SERVICE = _builtin("apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False)

# apps
CONTROLLER_REVISION = _builtin("apps", "v1", "ControllerRevision", "controllerrevisions")
DAEMON_SET = _builtin("apps", "v1", "DaemonSet", "daemonsets")
DEPLOYMENT = _builtin("apps", "v1", "Deployment", "deployments")
REPLICA_SET = _builtin("apps", "v1", "ReplicaSet", "replicasets")
STATEFUL_SET = _builtin("apps", "v1", "StatefulSet", "statefulsets")

# authentication.k8s.io
SELF_SUBJECT_REVIEW = _builtin(
    "authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False
)
TOKEN_REVIEW = _builtin("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False)

# authorization.k8s.io
LOCAL_SUBJECT_ACCESS_REVIEW = _builtin(
    "authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews"
)
SELF_SUBJECT_ACCESS_REVIEW = _builtin(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)
SELF_SUBJECT_RULES_REVIEW = _builtin(
    "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False
)
SUBJECT_ACCESS_REVIEW = _builtin(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)

# autoscaling
HORIZONTAL_POD_AUTOSCALER_V1 = _builtin("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
HORIZONTAL_POD_AUTOSCALER = _builtin("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")

# batch
CRON_JOB = _builtin("batch", "v1", "CronJob", "cronjobs")
JOB = _builtin("batch", "v1", "Job", "jobs")

# certificates.k8s.io
CERTIFICATE_SIGNING_REQUEST = _builtin(
    "certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", namespaced=False
)
CLUSTER_TRUST_BUNDLE = _builtin(
    "certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles", namespaced=False
)
POD_CERTIFICATE_REQUEST = _builtin("certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests")

# coordination.k8s.io
LEASE = _builtin("coordination.k8s.io", "v1", "Lease", "leases")

# discovery.k8s.io
ENDPOINT_SLICE = _builtin("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")

# events.k8s.io
EVENTS_EVENT = _builtin("events.k8s.io", "v1", "Event", "events")

# flowcontrol.apiserver.k8s.io
FLOW_SCHEMA = _builtin("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", namespaced=False)
PRIORITY_LEVEL_CONFIGURATION = _builtin(
    "flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", namespaced=False
)

# networking.k8s.io
IP_ADDRESS = _builtin("networking.k8s.io", "v1", "IPAddress", "ipaddresses", namespaced=False)
INGRESS = _builtin("networking.k8s.io", "v1", "Ingress", "ingresses")
INGRESS_CLASS = _builtin("networking.k8s.io", "v1", "IngressClass", "ingressclasses", namespaced=False)
NETWORK_POLICY = _builtin("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
SERVICE_CIDR = _builtin("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", namespaced=False)

# node.k8s.io
RUNTIME_CLASS = _builtin("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False)

# policy
POD_DISRUPTION_BUDGET = _builtin("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")

# rbac.authorization.k8s.io
CLUSTER_ROLE = _builtin("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = _builtin(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
ROLE = _builtin("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = _builtin("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")

# resource.k8s.io
DEVICE_CLASS = _builtin("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", namespaced=False)
DEVICE_TAINT_RULE = _builtin("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules", namespaced=False)
RESOURCE_CLAIM = _builtin("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
RESOURCE_CLAIM_TEMPLATE = _builtin("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
RESOURCE_SLICE = _builtin("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", namespaced=False)

# scheduling.k8s.io
PRIORITY_CLASS = _builtin("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False)

# storage.k8s.io
CSI_DRIVER = _builtin("storage.k8s.io", "v1", "CSIDriver", "csidrivers", namespaced=False)
CSI_NODE = _builtin("storage.k8s.io", "v1", "CSINode", "csinodes", namespaced=False)
CSI_STORAGE_CAPACITY = _builtin("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
STORAGE_CLASS = _builtin("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False)
VOLUME_ATTACHMENT = _builtin("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", namespaced=False)
VOLUME_ATTRIBUTES_CLASS = _builtin(
    "storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", namespaced=False
)

# storagemigration.k8s.io
STORAGE_VERSION_MIGRATION = _builtin(
    "storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations", namespaced=False
)

BUILTIN: tuple[Kind, ...] = tuple(_BY_KIND.values())
"""Every kind above, which are the ones that have a collection of their own."""

# Kinds that only subresources speak: pods/eviction, */scale, serviceaccounts/token.
EVICTION = _builtin("policy", "v1", "Eviction", "evictions")
SCALE = _builtin("autoscaling", "v1", "Scale", "scales")
TOKEN_REQUEST = _builtin("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")


def find(api_version: str, kind: str) -> Kind | None:
    """The built-in kind of an object's `apiVersion` and `kind`, or None."""
    group, _, version = api_version.rpartition("/")
    return _BY_KIND.get((group, version, kind))


def by_plural(group: str, version: str, plural: str) -> Kind | None:
    """The built-in kind of a REST path's group, version and resource, or None."""
    return _BY_PLURAL.get((group, version, plural))
