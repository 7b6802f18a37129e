"""Priority: a pod's priority class, resolved to its number when the pod is created; at most one default class."""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.write_context import WriteContext

CLASSES = "priorityclasses.scheduling.k8s.io"


class Priority(Plugin):
    """Pods and PriorityClasses."""

    resources = frozenset(("pods", CLASSES))

    def mutate(self, ctx: WriteContext) -> None:
        if ctx.resource.storage != "pods" or ctx.operation != "CREATE":
            return
        spec = ctx.obj.get("spec")
        if not isinstance(spec, dict):
            return
        name = spec.get("priorityClassName") or ""
        found = ctx.lookup.get(CLASSES, "", name) if name else _default(ctx)
        if name and found is None:
            raise errors.forbidden("", "pods", ctx.name, f"no PriorityClass with name {name} was found")
        value, policy = 0, "PreemptLowerPriority"
        if found is not None:
            spec["priorityClassName"] = found["metadata"]["name"]
            value, policy = found.get("value", 0), found.get("preemptionPolicy", policy)
        if spec.get("priority") not in (None, value):
            why = (
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name"
            )
            raise errors.forbidden("", "pods", ctx.name, why)
        if spec.get("preemptionPolicy") not in (None, policy):
            why = (
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name"
            )
            raise errors.forbidden("", "pods", ctx.name, why)
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def validate(self, ctx: WriteContext) -> None:
        if ctx.resource.storage != CLASSES or not ctx.obj.get("globalDefault"):
            return
        present = _default(ctx)
        if present is not None and present["metadata"]["name"] != ctx.name:
            why = (
                f"PriorityClass {present['metadata']['name']} is already marked as default. Only one default can exist"
            )
            raise errors.forbidden("scheduling.k8s.io", "priorityclasses", ctx.name, why)


def _default(ctx: WriteContext) -> dict[str, Any] | None:
    classes = [item for item in ctx.lookup.list(CLASSES) if item.get("globalDefault")]
    return min(classes, key=lambda item: item.get("value", 0), default=None)
