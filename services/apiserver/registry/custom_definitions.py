"""CustomResourceDefinitions as objects. What they make the server do is in `services.apiserver.crd`."""

from __future__ import annotations

from typing import Any

from services.apiserver.registry.metadata import now_text
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
            "storedVersions": [version.get("name", "") for version in versions if version.get("storage")],
        }

    def prepare_update(self, ctx: WriteContext) -> None:
        super().prepare_update(ctx)
        if ctx.subresource == "status":
            return
        # Objects of the new storage version will exist from now on.
        status: dict[str, Any] = dict(ctx.obj.get("status") or {})
        stored = list(status.get("storedVersions") or ())
        for version in ctx.spec().get("versions") or ():
            if version.get("storage") and version.get("name") not in stored:
                stored.append(version["name"])
        status["storedVersions"] = stored
        ctx.obj["status"] = status

    def prepare_delete(self, obj: dict[str, Any]) -> None:
        if "deletionTimestamp" not in obj["metadata"]:
            finalizers = obj["metadata"].setdefault("finalizers", [])
            if CLEANUP_FINALIZER not in finalizers:
                finalizers.append(CLEANUP_FINALIZER)

    def begin_deletion(self, obj: dict[str, Any]) -> None:
        obj["metadata"].pop("deletionGracePeriodSeconds", None)
        message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        set_condition(obj.setdefault("status", {}), "Terminating", "True", "InstanceDeletionPending", message)


def set_condition(status: dict[str, Any], kind: str, value: str, reason: str, message: str) -> None:
    """Set a condition; its time moves only when its value does."""
    conditions: list[dict[str, Any]] = status.setdefault("conditions", [])
    new = {"type": kind, "status": value, "lastTransitionTime": now_text(), "reason": reason, "message": message}
    for index, present in enumerate(conditions):
        if present.get("type") == kind:
            if present.get("status") == value:
                new["lastTransitionTime"] = present.get("lastTransitionTime", new["lastTransitionTime"])
            conditions[index] = new
            return
    conditions.append(new)
