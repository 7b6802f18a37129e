"""Pods and nodes, with only those fields that some controller reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from services.controller_manager.views.meta import Condition, Meta, View, nothing


class ContainerPort(View, frozen=True, gc=False):
    containerPort: int = 0
    name: str = ""
    protocol: str = "TCP"
    hostPort: int = 0


class Resources(View, frozen=True, gc=False):
    requests: dict[str, str] = msgspec.field(default_factory=nothing)
    limits: dict[str, str] = msgspec.field(default_factory=nothing)


class Container(View, frozen=True, gc=False):
    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    resources: Resources = Resources()
    restartPolicy: str = ""


class Toleration(View, frozen=True, gc=False):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    tolerationSeconds: int | None = None


class ClaimSource(View, frozen=True, gc=False):
    claimName: str = ""


class Volume(View, frozen=True, gc=False):
    name: str = ""
    persistentVolumeClaim: ClaimSource | None = None
    ephemeral: dict[str, Any] | None = None


class PodResourceClaim(View, frozen=True, gc=False):
    name: str = ""
    resourceClaimName: str = ""
    resourceClaimTemplateName: str = ""


class PodResourceClaimStatus(View, frozen=True, gc=False):
    name: str = ""
    resourceClaimName: str = ""


class PodExtendedResourceClaimStatus(View, frozen=True, gc=False):
    resourceClaimName: str = ""


class PodSpec(View, frozen=True, gc=False):
    nodeName: str = ""
    hostname: str = ""
    subdomain: str = ""
    restartPolicy: str = "Always"
    hostNetwork: bool = False
    priorityClassName: str = ""
    activeDeadlineSeconds: int | None = None
    containers: tuple[Container, ...] = ()
    initContainers: tuple[Container, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    volumes: tuple[Volume, ...] = ()
    overhead: dict[str, str] = msgspec.field(default_factory=nothing)
    affinity: dict[str, Any] | None = None
    resourceClaims: tuple[PodResourceClaim, ...] = ()


class Terminated(View, frozen=True, gc=False):
    exitCode: int = 0
    finishedAt: datetime | None = None


class Running(View, frozen=True, gc=False):
    startedAt: datetime | None = None


class ContainerState(View, frozen=True, gc=False):
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(View, frozen=True, gc=False):
    name: str = ""
    ready: bool = False
    restartCount: int = 0
    state: ContainerState = ContainerState()


class PodIP(View, frozen=True, gc=False):
    ip: str = ""


class PodStatus(View, frozen=True, gc=False):
    phase: str = "Pending"
    reason: str = ""
    podIP: str = ""
    podIPs: tuple[PodIP, ...] = ()
    startTime: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    containerStatuses: tuple[ContainerStatus, ...] = ()
    initContainerStatuses: tuple[ContainerStatus, ...] = ()
    resourceClaimStatuses: tuple[PodResourceClaimStatus, ...] = ()
    extendedResourceClaimStatus: PodExtendedResourceClaimStatus | None = None


class Pod(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Taint(View, frozen=True, gc=False):
    key: str = ""
    value: str = ""
    effect: str = ""
    timeAdded: datetime | None = None


class NodeSpec(View, frozen=True, gc=False):
    podCIDR: str = ""
    podCIDRs: tuple[str, ...] = ()
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(View, frozen=True, gc=False):
    type: str = ""
    address: str = ""


class NodeStatus(View, frozen=True, gc=False):
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    allocatable: dict[str, str] = msgspec.field(default_factory=nothing)


class Node(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(View, frozen=True, gc=False):
    holderIdentity: str = ""
    renewTime: datetime | None = None


class Lease(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: LeaseSpec = LeaseSpec()
