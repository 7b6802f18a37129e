"""Services and their endpoints, storage, policy, and the small cluster-scoped kinds."""

from __future__ import annotations

from typing import Any

import msgspec

from services.controller_manager.views.meta import Condition, LabelSelector, Meta, View, nothing


class ServicePort(View, frozen=True, gc=False):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    targetPort: int | str | None = None
    appProtocol: str | None = None
    nodePort: int = 0


class ServiceSpec(View, frozen=True, gc=False):
    type: str = "ClusterIP"
    clusterIP: str = ""
    clusterIPs: tuple[str, ...] = ()
    ipFamilies: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = msgspec.field(default_factory=nothing)
    publishNotReadyAddresses: bool = False
    trafficDistribution: str = ""
    loadBalancerIP: str = ""
    loadBalancerClass: str | None = None
    externalName: str = ""


class Service(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class Endpoints(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    subsets: tuple[dict[str, Any], ...] | None = None


class EndpointSlice(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    addressType: str = "IPv4"
    endpoints: tuple[dict[str, Any], ...] | None = None
    ports: tuple[dict[str, Any], ...] | None = None


class Finalizers(View, frozen=True, gc=False):
    finalizers: tuple[str, ...] = ()


class Namespace(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: Finalizers = Finalizers()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class ConfigMap(View, frozen=True, gc=False):
    """The root CA's ConfigMap is the only one whose data matters here.

    The shared informer keeps metadata of the others.
    """

    metadata: Meta = Meta()


class Secret(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    type: str = ""


class ObjectReference(View, frozen=True, gc=False):
    apiVersion: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resourceVersion: str = ""


class VolumeSpec(View, frozen=True, gc=False):
    capacity: dict[str, str] = msgspec.field(default_factory=nothing)
    accessModes: tuple[str, ...] = ()
    claimRef: ObjectReference | None = None
    storageClassName: str = ""
    volumeMode: str = "Filesystem"
    persistentVolumeReclaimPolicy: str = "Retain"
    nodeAffinity: dict[str, Any] | None = None
    local: dict[str, Any] | None = None
    hostPath: dict[str, Any] | None = None
    csi: dict[str, Any] | None = None
    volumeAttributesClassName: str = ""


class PersistentVolume(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: VolumeSpec = VolumeSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class ClaimResources(View, frozen=True, gc=False):
    requests: dict[str, str] = msgspec.field(default_factory=nothing)


class ClaimSpec(View, frozen=True, gc=False):
    accessModes: tuple[str, ...] = ()
    selector: LabelSelector | None = None
    resources: ClaimResources = ClaimResources()
    volumeName: str = ""
    storageClassName: str | None = None
    volumeMode: str = "Filesystem"
    volumeAttributesClassName: str = ""


class PersistentVolumeClaim(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: ClaimSpec = ClaimSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class StorageClass(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    provisioner: str = ""
    parameters: dict[str, str] = msgspec.field(default_factory=nothing)
    reclaimPolicy: str = "Delete"
    volumeBindingMode: str = "Immediate"
    allowVolumeExpansion: bool = False
    mountOptions: tuple[str, ...] = ()
    allowedTopologies: tuple[dict[str, Any], ...] = ()


class DisruptionBudgetSpec(View, frozen=True, gc=False):
    minAvailable: int | str | None = None
    maxUnavailable: int | str | None = None
    selector: LabelSelector | None = None
    unhealthyPodEvictionPolicy: str = ""


class PodDisruptionBudget(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: DisruptionBudgetSpec = DisruptionBudgetSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class QuotaSpec(View, frozen=True, gc=False):
    hard: dict[str, str] = msgspec.field(default_factory=nothing)
    scopes: tuple[str, ...] = ()
    scopeSelector: dict[str, Any] | None = None


class ResourceQuota(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: QuotaSpec = QuotaSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)


class SigningRequestSpec(View, frozen=True, gc=False):
    request: str = ""
    signerName: str = ""
    usages: tuple[str, ...] = ()
    username: str = ""
    groups: tuple[str, ...] = ()
    expirationSeconds: int | None = None


class SigningRequestStatus(View, frozen=True, gc=False):
    conditions: tuple[Condition, ...] = ()
    certificate: str = ""


class CertificateSigningRequest(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: SigningRequestSpec = SigningRequestSpec()
    status: SigningRequestStatus = SigningRequestStatus()


class AggregationRule(View, frozen=True, gc=False):
    clusterRoleSelectors: tuple[LabelSelector, ...] = ()


class ClusterRole(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    aggregationRule: AggregationRule | None = None
    rules: tuple[dict[str, Any], ...] | None = None


class ServiceAccount(View, frozen=True, gc=False):
    metadata: Meta = Meta()


class CustomResourceDefinition(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: dict[str, Any] = msgspec.field(default_factory=nothing)
    status: dict[str, Any] = msgspec.field(default_factory=nothing)
