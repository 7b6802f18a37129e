"""RuntimeClass: a pod that names one gets its overhead and its scheduling constraints, and must name one that
exists."""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from machinery.api.quantity import parse
from services.apiserver.admission.chain import Plugin
from services.apiserver.write_context import WriteContext

CLASSES = "runtimeclasses.node.k8s.io"


class RuntimeClass(Plugin):
    """Fills in on creation; `spec.overhead` is the class's alone to say."""

    resources = frozenset(("pods",))
    operations = frozenset(("CREATE",))

    def mutate(self, ctx: WriteContext) -> None:
        spec = ctx.obj.get("spec")
        if not isinstance(spec, dict):
            return
        name = spec.get("runtimeClassName")
        if not name:
            if spec.get("overhead"):
                raise _refused(ctx, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
            return
        found = ctx.lookup.get(CLASSES, "", name)
        if found is None:
            raise _refused(ctx, f'pod rejected: RuntimeClass "{name}" not found')
        set_overhead(ctx, spec, (found.get("overhead") or {}).get("podFixed") or {})
        set_scheduling(ctx, spec, found.get("scheduling") or {})


def set_overhead(ctx: WriteContext, spec: dict[str, Any], overhead: dict[str, Any]) -> None:
    """The class's overhead; a pod that says its own must say the same."""
    own = {name: parse(value) for name, value in (spec.get("overhead") or {}).items()}
    if own and own != {name: parse(value) for name, value in overhead.items()}:
        raise _refused(ctx, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    if overhead:
        spec["overhead"] = dict(overhead)


def set_scheduling(ctx: WriteContext, spec: dict[str, Any], scheduling: dict[str, Any]) -> None:
    """The class's node selector and tolerations beside the pod's own."""
    selector: dict[str, str] = dict(spec.get("nodeSelector") or {})
    for key, value in (scheduling.get("nodeSelector") or {}).items():
        if selector.get(key, value) != value:
            theirs = f"runtimeClass.scheduling.nodeSelector[{key}] = {value}"
            why = f"conflict: {theirs}; pod.spec.nodeSelector[{key}] = {selector[key]}"
            raise _refused(ctx, why)
        selector[key] = value
    if selector:
        spec["nodeSelector"] = selector
    tolerations = list(spec.get("tolerations") or ())
    tolerations += [item for item in scheduling.get("tolerations") or () if item not in tolerations]
    if tolerations:
        spec["tolerations"] = tolerations


def _refused(ctx: WriteContext, why: str) -> errors.Forbidden:
    return errors.forbidden("", "pods", ctx.name, why)
