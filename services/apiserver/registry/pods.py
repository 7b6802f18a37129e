"""Pods: never replaced, only moved along; deleted gracefully once a kubelet holds them."""

from __future__ import annotations

from typing import Any

from machinery.api.quantity import parse_quantity
from services.apiserver.registry.metadata import now_text
from services.apiserver.registry.strategy import Strategy, keep_all_but
from services.apiserver.request import DeleteOptions
from services.apiserver.write_context import WriteContext

DEFAULT_GRACE_SECONDS = 30
_QOS_RESOURCES = ("cpu", "memory")


class PodStrategy(Strategy):
    """Subresources: status, ephemeralcontainers, resize; binding and eviction are posts of their own."""

    generation = True
    returns_deleted = True

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        pod = ctx.obj
        pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod.get("spec") or {})}
        if ctx.spec().get("schedulingGates"):
            pod["status"]["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                    "lastProbeTime": None,
                    "lastTransitionTime": now_text(),
                    "observedGeneration": 1,
                }
            ]

    def prepare_update(self, ctx: WriteContext) -> None:
        assert ctx.old is not None
        if ctx.subresource == "ephemeralcontainers":
            wanted = ctx.spec().get("ephemeralContainers") or []
            keep_all_but(ctx.obj, ctx.old)
            ctx.obj["spec"] = dict(ctx.old["spec"])
            if wanted:
                ctx.obj["spec"]["ephemeralContainers"] = wanted
        elif ctx.subresource == "resize":
            wanted_spec = ctx.spec()
            keep_all_but(ctx.obj, ctx.old)
            ctx.obj["spec"] = with_resources(ctx.old["spec"], wanted_spec)
        else:
            super().prepare_update(ctx)
            if ctx.subresource == "status":
                owners = ctx.old["metadata"].get("ownerReferences")
                ctx.metadata.pop("ownerReferences", None)
                if owners:
                    ctx.metadata["ownerReferences"] = owners
                ctx.obj.setdefault("status", {}).setdefault("qosClass", ctx.old["status"].get("qosClass"))

    def grace_seconds(self, obj: dict[str, Any], options: DeleteOptions) -> int | None:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        grace = options.grace_period_seconds
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        # A pod that no kubelet holds, or whose containers have ended, has nothing to wait for.
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        # Upstream: a negative value means the shortest possible.
        return 1 if grace < 0 else grace


def qos_class(spec: dict[str, Any]) -> str:
    """Guaranteed if every container's limits equal its requests for cpu and memory, BestEffort if none has any, else
    Burstable."""
    guaranteed, some = True, False
    pod_level = spec.get("resources") or {}
    if pod_level.get("requests") or pod_level.get("limits"):
        parts: list[dict[str, Any]] = [{"resources": pod_level}]
    else:
        parts = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for container in parts:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in _QOS_RESOURCES:
            limit, request = _amount(limits.get(name)), _amount(requests.get(name))
            some = some or bool(limit) or bool(request)
            # A request that is left out is the limit.
            if not limit or (name in requests and request != limit):
                guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed and parts else "Burstable"


def _amount(text: Any) -> Any:
    if text is None:
        return 0
    quantity = parse_quantity(str(text))
    return quantity.milli_value


def with_resources(old: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The old spec with the wanted one's resources of the pod, and resources and resize policies of its containers."""
    out = dict(old)
    if "resources" in wanted:
        out["resources"] = wanted["resources"]
    for field in ("containers", "initContainers"):
        by_name = {container.get("name"): container for container in wanted.get(field) or ()}
        if field not in old:
            continue
        out[field] = []
        for container in old[field]:
            changed = dict(container)
            new = by_name.get(container["name"], container)
            for part in ("resources", "resizePolicy"):
                if part in new:
                    changed[part] = new[part]
            out[field].append(changed)
    return out
