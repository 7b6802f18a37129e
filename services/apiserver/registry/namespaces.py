"""Namespaces: a deleted one stays, Terminating, until the namespace controller has emptied it and clears
`spec.finalizers`."""

from __future__ import annotations

from typing import Any

from services.apiserver.registry.strategy import Strategy, keep
from services.apiserver.write_context import WriteContext

NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceStrategy(Strategy):
    """Subresources: status, finalize (the only way to change `spec.finalizers`)."""

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        finalizers = ctx.spec().get("finalizers") or []
        if "kubernetes" not in finalizers:
            finalizers = [*finalizers, "kubernetes"]
        ctx.obj["spec"] = {"finalizers": finalizers}
        ctx.obj["status"] = {"phase": "Active"}
        ctx.metadata.setdefault("labels", {})[NAME_LABEL] = ctx.metadata.get("name", "")

    def prepare_update(self, ctx: WriteContext) -> None:
        assert ctx.old is not None
        if ctx.subresource == "finalize":
            keep(ctx.obj, ctx.old, "status")
        else:
            super().prepare_update(ctx)
            keep(ctx.obj, ctx.old, "spec")
        ctx.metadata.setdefault("labels", {})[NAME_LABEL] = ctx.name

    def blocks_removal(self, obj: dict[str, Any]) -> bool:
        return bool((obj.get("spec") or {}).get("finalizers"))

    def begin_deletion(self, obj: dict[str, Any]) -> None:
        obj.setdefault("status", {})["phase"] = "Terminating"
        # A namespace has no grace period; its field only says that deletion began.
        obj["metadata"].pop("deletionGracePeriodSeconds", None)
