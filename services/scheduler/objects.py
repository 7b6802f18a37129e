"""Pods and nodes, with only the fields that scheduling looks at.

Decoding skips the rest, and a pod takes a fraction of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec


class _Slim(msgspec.Struct, omit_defaults=True, gc=False):
    """Base: leaves of decoded JSON, never in a cycle."""


class OwnerReference(_Slim):
    kind: str = ""
    name: str = ""
    uid: str = ""
    apiVersion: str = ""
    controller: bool | None = None


class Metadata(_Slim):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creationTimestamp: datetime | None = None
    deletionTimestamp: datetime | None = None
    ownerReferences: list[OwnerReference] | None = None


class Resources(_Slim):
    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None


class ContainerPort(_Slim):
    containerPort: int = 0
    hostPort: int | None = None
    hostIP: str | None = None
    protocol: str | None = None


class Container(_Slim):
    name: str = ""
    image: str | None = None
    resources: Resources | None = None
    ports: list[ContainerPort] | None = None
    restartPolicy: str | None = None


class Requirement(_Slim):
    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(_Slim):
    matchLabels: dict[str, str] | None = None
    matchExpressions: list[Requirement] | None = None


class NodeSelectorTerm(_Slim):
    matchExpressions: list[Requirement] | None = None
    matchFields: list[Requirement] | None = None


class NodeSelector(_Slim):
    nodeSelectorTerms: list[NodeSelectorTerm] = []


class PreferredTerm(_Slim):
    weight: int
    preference: NodeSelectorTerm


class NodeAffinity(_Slim):
    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector | None = None
    preferredDuringSchedulingIgnoredDuringExecution: list[PreferredTerm] | None = None


class PodAffinityTerm(_Slim):
    topologyKey: str
    labelSelector: LabelSelector | None = None
    namespaces: list[str] | None = None
    namespaceSelector: LabelSelector | None = None
    matchLabelKeys: list[str] | None = None
    mismatchLabelKeys: list[str] | None = None


class WeightedPodAffinityTerm(_Slim):
    weight: int
    podAffinityTerm: PodAffinityTerm


class PodAffinity(_Slim):
    requiredDuringSchedulingIgnoredDuringExecution: list[PodAffinityTerm] | None = None
    preferredDuringSchedulingIgnoredDuringExecution: list[WeightedPodAffinityTerm] | None = None


class Affinity(_Slim):
    nodeAffinity: NodeAffinity | None = None
    podAffinity: PodAffinity | None = None
    podAntiAffinity: PodAffinity | None = None


class Toleration(_Slim):
    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None


class SpreadConstraint(_Slim):
    maxSkew: int
    topologyKey: str
    whenUnsatisfiable: str
    labelSelector: LabelSelector | None = None
    matchLabelKeys: list[str] | None = None
    minDomains: int | None = None
    nodeAffinityPolicy: str | None = None
    nodeTaintsPolicy: str | None = None


class Named(_Slim):
    name: str = ""


class ClaimSource(_Slim):
    claimName: str = ""


class Volume(_Slim):
    name: str = ""
    persistentVolumeClaim: ClaimSource | None = None
    # A generic ephemeral volume; its claim is named <pod>-<volume>.
    ephemeral: dict[str, Any] | None = None
    gcePersistentDisk: dict[str, Any] | None = None
    awsElasticBlockStore: dict[str, Any] | None = None
    rbd: dict[str, Any] | None = None
    iscsi: dict[str, Any] | None = None


class DeviceClaimRef(_Slim):
    """PodResourceClaim: devices by a claim of that name, or by one that is made from a template."""

    name: str = ""
    resourceClaimName: str | None = None
    resourceClaimTemplateName: str | None = None


class PodSpec(_Slim):
    containers: list[Container] = []
    initContainers: list[Container] | None = None
    overhead: dict[str, str] | None = None
    resources: Resources | None = None
    nodeName: str | None = None
    nodeSelector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    topologySpreadConstraints: list[SpreadConstraint] | None = None
    priority: int | None = None
    preemptionPolicy: str | None = None
    schedulerName: str | None = None
    schedulingGates: list[Named] | None = None
    resourceClaims: list[DeviceClaimRef] | None = None
    volumes: list[Volume] | None = None
    hostNetwork: bool | None = None


class PodCondition(_Slim):
    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None


class DeviceClaimStatus(_Slim):
    """Which claim was made for a pod's claim; without a name none was needed."""

    name: str = ""
    resourceClaimName: str | None = None


class ExtendedClaimStatus(_Slim):
    """The claim that stands for the pod's extended resources, written by the scheduler."""

    resourceClaimName: str = ""


class PodStatus(_Slim):
    phase: str | None = None
    nominatedNodeName: str | None = None
    conditions: list[PodCondition] | None = None
    startTime: datetime | None = None
    resourceClaimStatuses: list[DeviceClaimStatus] | None = None
    extendedResourceClaimStatus: ExtendedClaimStatus | None = None


class Pod(_Slim):
    """core/v1 Pod, as far as scheduling goes."""

    metadata: Metadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)
    apiVersion: str = "v1"
    kind: str = "Pod"


class Taint(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    key: str
    effect: str
    value: str | None = None


class NodeSpec(_Slim):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None
    providerID: str | None = None


class NodeImage(_Slim):
    names: list[str] | None = None
    sizeBytes: int | None = None


class NodeStatus(_Slim):
    allocatable: dict[str, str] | None = None
    capacity: dict[str, str] | None = None
    images: list[NodeImage] | None = None


class Node(_Slim):
    """core/v1 Node, as far as scheduling goes."""

    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)
    apiVersion: str = "v1"
    kind: str = "Node"


class DisruptionBudgetSpec(_Slim):
    selector: LabelSelector | None = None


class DisruptionBudgetStatus(_Slim):
    disruptionsAllowed: int = 0


class DisruptionBudget(_Slim):
    """policy/v1 PodDisruptionBudget, as far as preemption goes."""

    metadata: Metadata
    spec: DisruptionBudgetSpec = msgspec.field(default_factory=DisruptionBudgetSpec)
    status: DisruptionBudgetStatus = msgspec.field(default_factory=DisruptionBudgetStatus)


decode_disruption_budget: Callable[[bytes], DisruptionBudget] = msgspec.json.Decoder(DisruptionBudget).decode
decode_pod: Callable[[bytes], Pod] = msgspec.json.Decoder(Pod).decode
decode_node: Callable[[bytes], Node] = msgspec.json.Decoder(Node).decode
