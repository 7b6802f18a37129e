"""Claims to devices (resource.k8s.io), with what their controller reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from services.controller_manager.views.meta import Condition, Meta, View, nothing


class Consumer(View, frozen=True, gc=False):
    apiGroup: str = ""
    resource: str = ""
    name: str = ""
    uid: str = ""


class DeviceToleration(View, frozen=True, gc=False):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    tolerationSeconds: int | None = None


class Result(View, frozen=True, gc=False):
    """A device that a claim has."""

    driver: str = ""
    pool: str = ""
    device: str = ""
    tolerations: tuple[DeviceToleration, ...] = ()


class Results(View, frozen=True, gc=False):
    results: tuple[Result, ...] = ()


class Allocation(View, frozen=True, gc=False):
    devices: Results = Results()


class ClaimStatus(View, frozen=True, gc=False):
    allocation: Allocation | None = None
    reservedFor: tuple[Consumer, ...] = ()


class ResourceClaim(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: dict[str, Any] = msgspec.field(default_factory=nothing)
    status: ClaimStatus = ClaimStatus()


class TemplateSpec(View, frozen=True, gc=False):
    metadata: dict[str, Any] = msgspec.field(default_factory=nothing)
    spec: dict[str, Any] = msgspec.field(default_factory=nothing)


class ResourceClaimTemplate(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: TemplateSpec = TemplateSpec()


class DeviceTaint(View, frozen=True, gc=False):
    key: str = ""
    value: str = ""
    effect: str = ""
    timeAdded: datetime | None = None


class Device(View, frozen=True, gc=False):
    name: str = ""
    taints: tuple[DeviceTaint, ...] = ()


class Pool(View, frozen=True, gc=False):
    name: str = ""
    generation: int = 0


class SliceSpec(View, frozen=True, gc=False):
    driver: str = ""
    pool: Pool = Pool()
    devices: tuple[Device, ...] = ()


class ResourceSlice(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: SliceSpec = SliceSpec()

    @property
    def pool(self) -> tuple[str, str]:
        """What names the pool: driver and name."""
        return (self.spec.driver, self.spec.pool.name)


class DeviceTaintSelector(View, frozen=True, gc=False):
    driver: str | None = None
    pool: str | None = None
    device: str | None = None


class TaintRuleSpec(View, frozen=True, gc=False):
    deviceSelector: DeviceTaintSelector | None = None
    taint: DeviceTaint = DeviceTaint()


class TaintRuleStatus(View, frozen=True, gc=False):
    conditions: tuple[Condition, ...] = ()


class DeviceTaintRule(View, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: TaintRuleSpec = TaintRuleSpec()
    status: TaintRuleStatus = TaintRuleStatus()
