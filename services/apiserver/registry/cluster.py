"""Cluster kinds with small rules of their own."""

from __future__ import annotations

from typing import Any

from services.apiserver.registry.metadata import now_text
from services.apiserver.registry.strategy import Strategy, keep, keep_all_but
from services.apiserver.write_context import WriteContext


class NodeStrategy(Strategy):
    """A kubelet registers its node with its status in one call."""

    def prepare_create(self, ctx: WriteContext) -> None:
        status = ctx.obj.get("status")
        super().prepare_create(ctx)
        if status:
            ctx.obj["status"] = status


class VolumeStrategy(Strategy):
    """PersistentVolumes and claims are pending until a controller has bound them."""

    returns_deleted = True

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        ctx.obj["status"] = {"phase": "Pending"}


class SigningRequestStrategy(Strategy):
    """Who asks is written down by the apiserver. Subresources: approval (conditions only), status (certificate and
    conditions)."""

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        spec: dict[str, Any] = ctx.obj.setdefault("spec", {})
        user = ctx.user
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        spec["username"] = user.name
        if user.uid:
            spec["uid"] = user.uid
        if user.groups:
            spec["groups"] = list(user.groups)
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}
        ctx.obj["status"] = {}

    def prepare_update(self, ctx: WriteContext) -> None:
        assert ctx.old is not None
        old_status = ctx.old.get("status") or {}
        if ctx.subresource == "approval":
            conditions = (ctx.obj.get("status") or {}).get("conditions")
            keep_all_but(ctx.obj, ctx.old)
            ctx.obj["status"] = {**old_status, **({"conditions": conditions} if conditions is not None else {})}
        elif ctx.subresource == "status":
            # Approving and denying is what the approval subresource, with its own right, is for.
            super().prepare_update(ctx)
            decided = [item for item in old_status.get("conditions") or () if item["type"] in ("Approved", "Denied")]
            status = ctx.obj.setdefault("status", {})
            others = [item for item in status.get("conditions") or () if item["type"] not in ("Approved", "Denied")]
            if decided or others:
                status["conditions"] = decided + others
        else:
            super().prepare_update(ctx)
            keep(ctx.obj, ctx.old, "spec")
        for condition in (ctx.obj.get("status") or {}).get("conditions") or ():
            condition.setdefault("lastUpdateTime", now_text())
            condition.setdefault("lastTransitionTime", now_text())


class CreateOnUpdateStrategy(Strategy):
    """PUT creates what does not exist."""

    create_on_update = True


class LeaseStrategy(CreateOnUpdateStrategy):
    """Leases are never overwritten blindly: that is what leader election rests on."""

    unconditional_update = False


class ConditionalStrategy(Strategy):
    """Updates must say which version they change."""

    unconditional_update = False


class ReturningStrategy(Strategy):
    """Deletion answers the object."""

    returns_deleted = True
