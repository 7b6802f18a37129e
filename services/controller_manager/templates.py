"""Pod templates: decoded, compared, hashed, and turned into pods."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from machinery.api.kinds import Kind
from services.controller_manager.views.meta import LabelSelector

POD_TEMPLATE_HASH = "pod-template-hash"

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_canonical = msgspec.json.Encoder(order="deterministic").encode

# Go compares an absent map or list with an empty one as equal; an absent struct (`emptyDir: {}`) it does not.
_MAPS = frozenset(
    ("labels", "annotations", "nodeSelector", "limits", "requests", "matchLabels", "overhead", "data", "options")
)

# Digits and letters without vowels and look-alikes, so that no hash spells a word.
_SAFE = "bcdfghjklmnpqrstvwxz2456789"


def decode(raw: msgspec.Raw) -> dict[str, Any]:
    """The template as a new plain map."""
    return _decode(raw)


def normalized(value: Any) -> Any:
    """The value without nulls, empty lists and empty maps of strings, for comparison only."""
    if isinstance(value, dict):
        out = {}
        for name, inner in value.items():
            inner = normalized(inner)
            if inner is None or inner == [] or (inner == {} and name in _MAPS):
                continue
            out[name] = inner
        return out
    if isinstance(value, list):
        return [normalized(inner) for inner in value]
    return value


def without_hash(template: dict[str, Any]) -> dict[str, Any]:
    """The template as its author wrote it: normalized and without the label that a controller added."""
    template = normalized(template)
    labels = template.get("metadata", {}).get("labels")
    if labels and POD_TEMPLATE_HASH in labels:
        del labels[POD_TEMPLATE_HASH]
        if not labels:
            del template["metadata"]["labels"]
    if template.get("metadata") == {}:
        del template["metadata"]
    return template


def equal_ignoring_hash(left: msgspec.Raw, right: msgspec.Raw) -> bool:
    """Whether two templates make the same pods."""
    return bytes(left) == bytes(right) or without_hash(decode(left)) == without_hash(decode(right))


def safe_encode(number: int) -> str:
    """A number in the alphabet of generated names."""
    return "".join(_SAFE[ord(char) % len(_SAFE)] for char in str(number))


def fnv1a(data: bytes) -> int:
    """32-bit FNV-1a."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def content_hash(value: Any, collisions: int | None = None) -> str:
    """A short name for content: equal for equal content, another one after each known collision."""
    data = _canonical(value)
    if collisions is not None:
        data += str(collisions).encode()
    return safe_encode(fnv1a(data))


def template_hash(template: dict[str, Any], collisions: int | None = None) -> str:
    """The value of `pod-template-hash`."""
    return content_hash(without_hash(template), collisions)


def mismatch(selector: LabelSelector, template: msgspec.Raw) -> str:
    """Why pods of this template would not be their owner's; empty if they would.

    The apiserver refuses such owners. One that got past it would make pods for ever, since none of them counts.
    """
    labels = decode(template).get("metadata", {}).get("labels") or {}
    if selector.matches(labels):
        return ""
    return f"spec.template.metadata.labels: {labels} are not what spec.selector selects: no pod would be its own"


def owner_reference(kind: Kind, meta: Any) -> dict[str, Any]:
    """A reference that makes the object of `meta` the controller of what carries it."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_from(template: dict[str, Any], kind: Kind, owner: Any, *, name: str = "") -> dict[str, Any]:
    """A new pod of this template, controlled by the object whose metadata `owner` is.

    With a name for pods that have an identity; otherwise the apiserver completes "owner-".
    """
    template = copy.deepcopy(template)
    given = template.get("metadata") or {}
    metadata: dict[str, Any] = {"namespace": owner.namespace, "ownerReferences": [owner_reference(kind, owner)]}
    for part in ("labels", "annotations", "finalizers"):
        if given.get(part):
            metadata[part] = given[part]
    if name:
        metadata["name"] = name
    else:
        metadata["generateName"] = generate_prefix(owner.name)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


def generate_prefix(owner: str) -> str:
    """The generateName of an owner's pods: "owner-", or the bare name if that would be no valid name."""
    return owner + "-" if len(owner) < 253 else owner
