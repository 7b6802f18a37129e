"""Claims to devices (resource.k8s.io), with what their controller reads."""

from __future__ import annotations

from typing import Any

import msgspec

from services.controller_manager.views.meta import Meta, View, nothing


class Consumer(View, frozen=True, gc=False):
    apiGroup: str = ""
    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimStatus(View, frozen=True, gc=False):
    # Its presence is what matters: what is in it is the scheduler's and the drivers'.
    allocation: dict[str, Any] | None = None
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
