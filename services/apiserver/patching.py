"""A patch, applied to an object of the version that the caller speaks."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import orjson

from machinery.api import errors
from services.apiserver import codec, go_text, ownership, scale
from services.apiserver.conversion import judged
from services.apiserver.intake import take_in
from services.apiserver.patch import json_patch, merge_patch, strategic
from services.apiserver.registry import metadata as meta
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Request, WriteOptions
from services.apiserver.schema import definitions
from services.apiserver.schema.intake import NotItsKind

SHOWN_CHARS_MAX = 64 * 1024
"""How much of a patched object an error shows."""


def apply_patch(
    req: Request,
    patch_type: str,
    patch: Any,
    old: dict[str, Any],
    options: WriteOptions,
    warnings: list[str],
) -> dict[str, Any]:
    """The object `old` (which may be changed) with the patch applied, as writes are judged (`conversion.judged`).
    Appends to `warnings`.

    Raises BadRequest, Invalid, Conflict (apply).
    """
    resource = req.resource
    if req.subresource == "scale":
        document = orjson.loads(scale.to_scale(resource, old))
        scale.apply_scale(resource, old, _patched(resource, patch_type, patch, document, "autoscaling/v1"))
        return old
    document = old if resource.as_stored or resource.remote is not None else _to_served(resource, old)
    if patch_type == "apply":
        if not isinstance(patch, dict):
            raise errors.BadRequest("an apply patch must be an object")
        applied = copy.deepcopy(patch)
        ownership.refuse_undeclared(resource, applied)
        warnings += take_in(resource, applied, options)
        meta.place(resource, meta.metadata_of(applied), req.namespace, req.name)
        return judged(resource, ownership.apply_existing(req, document, applied, options))
    body = _patched(resource, patch_type, patch, document, "")
    try:
        warnings += take_in(resource, body, options, _touched(patch_type, patch) if resource.as_stored else None)
    except NotItsKind as error:
        text = go_text.printed(patch) if patch_type == "strategic" else orjson.dumps(body).decode()
        value = go_text.quoted(text[:SHOWN_CHARS_MAX])
        cause = errors.Cause("FieldValueInvalid", f"Invalid value: {value}: {error.why}", "patch")
        raise errors.invalid("", "", "", [cause]) from error
    metadata = meta.metadata_of(body)
    if metadata.get("name") != req.name or (resource.namespaced and metadata.get("namespace") != req.namespace):
        meta.place(resource, metadata, req.namespace, req.name)
    return judged(resource, body)


def _patched(
    resource: Resource, patch_type: str, patch: Any, document: dict[str, Any], api_version: str
) -> dict[str, Any]:
    if patch_type == "json":
        result = json_patch.apply(document, patch)
    elif patch_type == "merge":
        if not isinstance(patch, dict):
            raise errors.BadRequest("a merge patch must be an object")
        result = merge_patch.apply(document, patch)
    elif patch_type == "strategic":
        if resource.custom is not None and not api_version:
            raise errors.UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )
        if not isinstance(patch, dict):
            raise errors.BadRequest("a strategic merge patch must be an object")
        kind = resource.subresources["scale"].kind if api_version else resource.kind
        node = definitions.node_for(kind)
        assert node is not None, f"{kind} has no definition"
        result = strategic.apply(document, patch, node)
    else:
        raise errors.UnsupportedMediaType(f"unknown patch type {patch_type}")
    if not isinstance(result, dict):
        raise errors.BadRequest("the patch does not leave an object")
    return result


def _touched(patch_type: str, patch: Any) -> Collection[str] | None:
    """The top-level fields that a patch can have changed; None: perhaps all. Nearly every patch is of a status."""
    if patch_type == "json" or any(name.startswith("$") for name in patch):
        return None
    return patch.keys()  # type: ignore[no-any-return]


def _to_served(resource: Resource, old: dict[str, Any]) -> dict[str, Any]:
    head = resource.head
    version = int(old["metadata"]["resourceVersion"])
    return codec.decode(codec.reversion(resource, codec.splice(head, version, codec.encode_tail(old))))
