"""CustomResourceDefinitions as objects. What they make the server do is in `services.apiserver.crd`."""

from __future__ import annotations

from typing import Any

from services.apiserver.registry.strategy import Strategy
from services.apiserver.write_context import WriteContext

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class DefinitionStrategy(Strategy):
    """A definition is held until its objects are gone, and remembers every version that was ever stored."""

    generation = True
    unconditional_update = False

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        versions = ctx.spec().get("versions") or ()
        ctx.obj["status"] = {
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [version["name"] for version in versions if version.get("storage")],
        }

    def prepare_update(self, ctx: WriteContext) -> None:
        super().prepare_update(ctx)
        if ctx.subresource == "status":
            return
        # Objects of the new storage version will exist from now on.
        status: dict[str, Any] = dict(ctx.obj.get("status") or {})
        stored = list(status.get("storedVersions") or ())
        for version in ctx.spec().get("versions") or ():
            if version.get("storage") and version["name"] not in stored:
                stored.append(version["name"])
        status["storedVersions"] = stored
        ctx.obj["status"] = status

    def begin_deletion(self, obj: dict[str, Any]) -> None:
        obj["metadata"].pop("deletionGracePeriodSeconds", None)
