"""LimitRanger: default requests and limits for containers, and bounds that containers, pods and claims must keep.

Upstream: plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from machinery.api import errors
from machinery.api.quantity import Quantity, parse
from services.apiserver.admission.chain import Plugin
from services.apiserver.write_context import WriteContext

ANNOTATION = "kubernetes.io/limit-ranger"
_REQUESTS, _LIMITS = "requests", "limits"


class LimitRanger(Plugin):
    """Reads the LimitRanges of the object's namespace."""

    resources = frozenset(("pods", "persistentvolumeclaims"))

    def cares(self, ctx: WriteContext) -> bool:
        if ctx.resource.storage == "pods":
            return (ctx.operation, ctx.subresource) in (("CREATE", ""), ("UPDATE", "resize"))
        return ctx.resource.storage == "persistentvolumeclaims" and ctx.subresource == "" and ctx.operation != "DELETE"

    def mutate(self, ctx: WriteContext) -> None:
        if ctx.resource.storage != "pods" or ctx.operation != "CREATE":
            return
        ranges = list(ctx.lookup.list("limitranges", ctx.namespace))
        for limit_range in ranges:
            set_defaults(ctx.obj, limit_range)

    def validate(self, ctx: WriteContext) -> None:
        problems: list[str] = []
        for limit_range in ctx.lookup.list("limitranges", ctx.namespace):
            for item in (limit_range.get("spec") or {}).get("limits") or ():
                if ctx.resource.storage == "pods":
                    problems += _pod_problems(ctx.obj, item)
                elif item.get("type") == "PersistentVolumeClaim":
                    resources = ctx.spec().get("resources") or {}
                    problems += _problems("PersistentVolumeClaim", item, resources)
        if problems:
            why = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, why)


def set_defaults(pod: dict[str, Any], limit_range: dict[str, Any]) -> None:
    """Fill in the requests and limits that containers left out."""
    spec = pod.get("spec") or {}
    notes: list[str] = []
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        for field, word in (("initContainers", "init container"), ("containers", "container")):
            for container in spec.get(field) or ():
                resources = container.setdefault("resources", {})
                for kind, source in ((_REQUESTS, "defaultRequest"), (_LIMITS, "default")):
                    given = resources.get(kind) or {}
                    missing = {name: value for name, value in (item.get(source) or {}).items() if name not in given}
                    if missing:
                        resources[kind] = given | missing
                        singular = kind.removesuffix("s")
                        notes += [f"{name} {singular} for {word} {container.get('name')}" for name in sorted(missing)]
                _limits_as_requests(resources)
    if notes:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = f"LimitRanger plugin set: {', '.join(notes)}"


def _limits_as_requests(resources: dict[str, Any]) -> None:
    """A limit without a request is the request too; defaults have been applied before the limit came."""
    limits = resources.get(_LIMITS) or {}
    if limits:
        resources[_REQUESTS] = {**limits, **(resources.get(_REQUESTS) or {})}


def _pod_problems(pod: dict[str, Any], item: dict[str, Any]) -> Iterator[str]:
    spec = pod.get("spec") or {}
    if item.get("type") == "Container":
        for field in ("containers", "initContainers"):
            for container in spec.get(field) or ():
                yield from _problems("Container", item, container.get("resources") or {})
    elif item.get("type") == "Pod":
        yield from _problems("Pod", item, pod_resources(spec))


def pod_resources(spec: dict[str, Any]) -> dict[str, Any]:
    """What a pod needs altogether: the sum of its containers and sidecars, or the largest init container with its
    sidecars."""
    out: dict[str, Any] = {}
    for kind in (_REQUESTS, _LIMITS):
        total: dict[str, Quantity] = {}
        for container in spec.get("containers") or ():
            _add(total, (container.get("resources") or {}).get(kind))
        sidecars: dict[str, Quantity] = {}
        peak: dict[str, Quantity] = {}
        for container in spec.get("initContainers") or ():
            needed: dict[str, Quantity] = {}
            _add(needed, (container.get("resources") or {}).get(kind))
            if container.get("restartPolicy") == "Always":
                _sum(sidecars, needed)
                _sum(total, needed)
                _max(peak, sidecars)
            else:
                _sum(needed, sidecars)
                _max(peak, needed)
        _max(total, peak)
        _sum(total, {name: parse(value) for name, value in (spec.get("overhead") or {}).items()})
        for name, value in ((spec.get("resources") or {}).get(kind) or {}).items():
            total[name] = parse(value)
        out[kind] = total
    return out


def _add(total: dict[str, Quantity], values: dict[str, Any] | None) -> None:
    _sum(total, {name: parse(value) for name, value in (values or {}).items()})


def _sum(total: dict[str, Quantity], values: dict[str, Quantity]) -> None:
    for name, value in values.items():
        total[name] = total[name] + value if name in total else value


def _max(total: dict[str, Quantity], values: dict[str, Quantity]) -> None:
    for name, value in values.items():
        total[name] = max(total[name], value) if name in total else value


def _problems(what: str, item: dict[str, Any], resources: dict[str, Any]) -> Iterator[str]:
    requests, limits = ({k: parse(v) for k, v in (resources.get(kind) or {}).items()} for kind in (_REQUESTS, _LIMITS))
    for name, bound in sorted((item.get("min") or {}).items()):
        request, limit = requests.get(name), limits.get(name)
        if request is None:
            yield f"minimum {name} usage per {what} is {bound}.  No request is specified"
        elif request < parse(bound):
            yield f"minimum {name} usage per {what} is {bound}, but request is {request}"
        elif limit is not None and limit < parse(bound):
            yield f"minimum {name} usage per {what} is {bound}, but limit is {limit}"
    for name, bound in sorted((item.get("max") or {}).items()):
        request, limit = requests.get(name), limits.get(name)
        if what == "PersistentVolumeClaim":
            limit = request
        if limit is None:
            yield f"maximum {name} usage per {what} is {bound}.  No limit is specified"
        elif limit > parse(bound):
            word = "request" if what == "PersistentVolumeClaim" else "limit"
            yield f"maximum {name} usage per {what} is {bound}, but {word} is {limit}"
        elif request is not None and request > parse(bound):
            yield f"maximum {name} usage per {what} is {bound}, but request is {request}"
    for name, ratio in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        request, limit = requests.get(name), limits.get(name)
        if not request or not limit:
            problem = "but no request is specified or request is 0."
            yield f"{name} max limit to request ratio per {what} is {ratio}, {problem}"
        elif limit.milli_value / request.milli_value > parse(ratio).milli_value / 1000:
            found = limit.milli_value / request.milli_value
            yield f"{name} max limit to request ratio per {what} is {ratio}, but provided ratio is {found:f}"
