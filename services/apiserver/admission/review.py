"""A write as an `admission.k8s.io/v1` AdmissionReview: for webhooks as JSON, for expressions as the variable
`request`."""

from __future__ import annotations

from typing import Any

from services.apiserver import codec
from services.apiserver.auth.reviews import user_info
from services.apiserver.registry.metadata import new_uid
from services.apiserver.registry.resource import Resource
from services.apiserver.write_context import WriteContext

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


def request_of(ctx: WriteContext, row: Resource) -> dict[str, Any]:
    """The AdmissionRequest, with objects of the version that `row` serves."""
    kind, own = row.kind, ctx.resource.kind
    request: dict[str, Any] = {
        "uid": new_uid(),
        "kind": {"group": kind.group, "version": kind.version, "kind": _body_kind(ctx, row)},
        "resource": {"group": row.group, "version": row.version, "resource": row.plural},
        "requestKind": {"group": own.group, "version": own.version, "kind": _body_kind(ctx, ctx.resource)},
        "requestResource": {"group": own.group, "version": own.version, "resource": own.plural},
        "name": ctx.name,
        "operation": ctx.operation,
        "userInfo": user_info(ctx.user),
        "dryRun": ctx.dry_run,
        "object": None if ctx.operation == "DELETE" else served(row, ctx.obj),
        "oldObject": served(row, ctx.old) if ctx.old is not None else None,
    }
    if ctx.subresource:
        request["subResource"] = request["requestSubResource"] = ctx.subresource
    if ctx.namespace or ctx.resource.storage == "namespaces":
        request["namespace"] = ctx.namespace or ctx.name
    if ctx.operation in _OPTIONS:
        options: dict[str, Any] = {"kind": _OPTIONS[ctx.operation], "apiVersion": "meta.k8s.io/v1"}
        if ctx.dry_run:
            options["dryRun"] = ["All"]
        if ctx.options.field_manager and ctx.operation != "DELETE":
            options["fieldManager"] = ctx.options.field_manager
        request["options"] = options
    return request


def _body_kind(ctx: WriteContext, row: Resource) -> str:
    sub = row.subresources.get(ctx.subresource) if ctx.subresource else None
    return sub.kind.kind if sub is not None and ctx.operation == "CONNECT" else row.kind.kind


def served(row: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    """A stored object as `row` serves it, with its kind in it."""
    if row.as_stored or not row.storage or obj.get("kind") != row.kind.kind:
        return obj
    version = int(obj["metadata"].get("resourceVersion") or 0)
    return codec.decode(codec.reversion(row, codec.splice(row.head, version, codec.encode_tail(obj))))
