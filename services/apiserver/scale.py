"""The scale subresource: `autoscaling/v1` Scale as a view of an object's replica counts, and back."""

from __future__ import annotations

from typing import Any

import orjson

from machinery.api import errors
from machinery.api.selectors import from_label_selector
from services.apiserver.registry.resource import Resource

SPEC_REPLICAS = "spec.replicas"
STATUS_REPLICAS = "status.replicas"


def to_scale(resource: Resource, obj: dict[str, Any]) -> bytes:
    """An object's Scale. Raises NotFound where the object has no replica count."""
    spec_path, status_path, selector_path = _paths(resource)
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    scale: dict[str, Any] = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": _at(obj, spec_path) or 0},
        "status": {"replicas": _at(obj, status_path) or 0},
    }
    selector = _at(obj, selector_path) if selector_path else None
    if isinstance(selector, str) and selector:
        scale["status"]["selector"] = selector
    elif isinstance(selector, dict):
        # A ReplicationController selects by plain labels.
        plain = resource.kind.kind == "ReplicationController"
        text = str(from_label_selector({"matchLabels": selector} if plain else selector))
        scale["status"]["selector"] = text
    return orjson.dumps(scale)


def apply_scale(resource: Resource, obj: dict[str, Any], scale: dict[str, Any]) -> None:
    """Set an object's replica count to what a Scale says. Raises BadRequest, Invalid, Conflict."""
    if scale.get("kind") not in (None, "", "Scale"):
        raise errors.BadRequest(f"the object provided is a {scale['kind']}, not a Scale")
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    name = obj["metadata"]["name"]
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise errors.BadRequest('Scale in version "v1" cannot be handled as a Scale: spec.replicas: must be an integer')
    if replicas < 0:
        cause = errors.Cause(
            "FieldValueInvalid", f"Invalid value: {replicas}: must be greater than or equal to 0", "spec.replicas"
        )
        raise errors.invalid("autoscaling", "Scale", name, [cause])
    spec_path = _paths(resource)[0]
    target = obj
    *parents, last = spec_path.split(".")
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = replicas


def _paths(resource: Resource) -> tuple[str, str, str]:
    """Where the wanted count, the present count and the selector are."""
    if resource.custom is not None:
        spec, status, selector = resource.custom.scale_paths
        return spec, status, selector
    return SPEC_REPLICAS, STATUS_REPLICAS, "spec.selector"


def _at(obj: Any, path: str) -> Any:
    for key in path.lstrip(".").split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj
