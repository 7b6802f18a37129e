"""resource.k8s.io/v1 objects, as far as allocation looks at them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from services.scheduler.objects import Metadata, NodeSelector, _Slim

FINALIZER = "resource.kubernetes.io/delete-protection"
"""Keeps an allocated claim until its devices are given back."""
RESULTS_MAX = 32
"""How many devices one claim may hold (AllocationResultsMaxSize)."""
SUBREQUESTS_MAX = 8
"""How many alternatives a request may have (FirstAvailableDeviceRequestMaxSize)."""

EXACT_COUNT, ALL = "ExactCount", "All"


class DeviceId(NamedTuple):
    """What names a device: unique in the cluster."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return "/".join(self)


class CelSelector(_Slim):
    expression: str = ""


class Selector(_Slim):
    cel: CelSelector | None = None


class CapacityRequirements(_Slim):
    requests: dict[str, str] | None = None


class DeviceTaint(_Slim):
    key: str = ""
    value: str = ""
    effect: str = ""


class DeviceToleration(_Slim):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    tolerationSeconds: int | None = None


class Exact(_Slim):
    """ExactDeviceRequest; with a name of its own also DeviceSubRequest."""

    name: str = ""
    deviceClassName: str = ""
    selectors: list[Selector] | None = None
    allocationMode: str = EXACT_COUNT
    count: int = 1
    adminAccess: bool | None = None
    tolerations: list[DeviceToleration] | None = None
    capacity: CapacityRequirements | None = None


class Request(_Slim):
    name: str = ""
    exactly: Exact | None = None
    firstAvailable: list[Exact] | None = None


class Constraint(_Slim):
    requests: list[str] | None = None
    matchAttribute: str | None = None
    distinctAttribute: str | None = None


class DeviceClaim(_Slim):
    requests: list[Request] = []
    constraints: list[Constraint] = []
    config: list[dict[str, Any]] = []


class ClaimSpec(_Slim):
    devices: DeviceClaim = msgspec.field(default_factory=DeviceClaim)


class Result(_Slim):
    """A device that a claim has."""

    request: str = ""
    driver: str = ""
    pool: str = ""
    device: str = ""
    adminAccess: bool | None = None
    shareID: str | None = None
    consumedCapacity: dict[str, str] | None = None
    bindingConditions: list[str] | None = None
    bindingFailureConditions: list[str] | None = None

    @property
    def id(self) -> DeviceId:
        return DeviceId(self.driver, self.pool, self.device)


class Results(_Slim):
    results: list[Result] = []


class Allocation(_Slim):
    devices: Results = msgspec.field(default_factory=Results)
    nodeSelector: NodeSelector | None = None
    allocationTimestamp: datetime | None = None


class Consumer(_Slim):
    apiGroup: str = ""
    resource: str = ""
    name: str = ""
    uid: str = ""


class Condition(_Slim):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class DeviceState(_Slim):
    """AllocatedDeviceStatus: what the driver says of a device that a claim has."""

    driver: str = ""
    pool: str = ""
    device: str = ""
    conditions: list[Condition] = []

    @property
    def id(self) -> DeviceId:
        return DeviceId(self.driver, self.pool, self.device)


class ClaimStatus(_Slim):
    allocation: Allocation | None = None
    reservedFor: list[Consumer] | None = None
    devices: list[DeviceState] | None = None


class ClaimMetadata(Metadata):
    finalizers: list[str] | None = None


class DeviceResourceClaim(_Slim):
    """ResourceClaim."""

    metadata: ClaimMetadata
    spec: ClaimSpec = msgspec.field(default_factory=ClaimSpec)
    status: ClaimStatus = msgspec.field(default_factory=ClaimStatus)

    @property
    def key(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    def reserved_for(self, uid: str) -> bool:
        return any(consumer.uid == uid for consumer in self.status.reservedFor or ())


class ClassSpec(_Slim):
    selectors: list[Selector] = []
    extendedResourceName: str | None = None
    config: list[dict[str, Any]] = []


class DeviceClass(_Slim):
    metadata: Metadata
    spec: ClassSpec = msgspec.field(default_factory=ClassSpec)


class Attribute(_Slim):
    """One of: a number, a truth value, a text, a semantic version."""

    number: int | None = msgspec.field(default=None, name="int")
    truth: bool | None = msgspec.field(default=None, name="bool")
    text: str | None = msgspec.field(default=None, name="string")
    version: str | None = None


class ValidRange(_Slim):
    min: str | None = None
    max: str | None = None
    step: str | None = None


class RequestPolicy(_Slim):
    default: str | None = None
    validValues: list[str] | None = None
    validRange: ValidRange | None = None


class Capacity(_Slim):
    value: str = "0"
    requestPolicy: RequestPolicy | None = None


class Counter(_Slim):
    value: str = "0"


class CounterSet(_Slim):
    name: str = ""
    counters: dict[str, Counter] = {}


class Consumption(_Slim):
    """Counters that a device uses up."""

    counterSet: str = ""
    counters: dict[str, Counter] = {}


class Device(_Slim):
    name: str = ""
    attributes: dict[str, Attribute] | None = None
    capacity: dict[str, Capacity] | None = None
    consumesCounters: list[Consumption] | None = None
    nodeName: str | None = None
    nodeSelector: NodeSelector | None = None
    allNodes: bool | None = None
    taints: list[DeviceTaint] | None = None
    bindsToNode: bool | None = None
    bindingConditions: list[str] | None = None
    bindingFailureConditions: list[str] | None = None
    allowMultipleAllocations: bool | None = None


class Pool(_Slim):
    name: str = ""
    generation: int = 0
    resourceSliceCount: int = 0


class SliceSpec(_Slim):
    driver: str = ""
    pool: Pool = msgspec.field(default_factory=Pool)
    nodeName: str | None = None
    nodeSelector: NodeSelector | None = None
    allNodes: bool | None = None
    perDeviceNodeSelection: bool | None = None
    devices: list[Device] | None = None
    sharedCounters: list[CounterSet] | None = None


class ResourceSlice(_Slim):
    metadata: Metadata
    spec: SliceSpec = msgspec.field(default_factory=SliceSpec)


class DeviceTaintSelector(_Slim):
    driver: str | None = None
    pool: str | None = None
    device: str | None = None


class TaintRuleSpec(_Slim):
    deviceSelector: DeviceTaintSelector | None = None
    taint: DeviceTaint = msgspec.field(default_factory=DeviceTaint)


class DeviceTaintRule(_Slim):
    metadata: Metadata
    spec: TaintRuleSpec = msgspec.field(default_factory=TaintRuleSpec)
