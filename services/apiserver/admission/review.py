"""A write as an `admission.k8s.io/v1` AdmissionReview: for webhooks as JSON, for expressions as the variable
`request`."""

from __future__ import annotations

import copy
from typing import Any

from machinery.api.kinds import Kind
from services.apiserver import codec, conversion
from services.apiserver.auth.reviews import user_info
from services.apiserver.registry.metadata import new_uid
from services.apiserver.registry.resource import Resource
from services.apiserver.write_context import WriteContext

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


Seen = tuple[dict[str, Any] | None, dict[str, Any] | None]
"""The object and the old object of a write, as a webhook or an expression is shown them."""


async def seen_as(ctx: WriteContext, row: Resource) -> Seen:
    """The write's objects as the version that `row` serves. Raises InternalError if a conversion webhook fails."""
    obj = None if ctx.operation == "DELETE" else ctx.obj
    if row.remote is None:
        return served(row, obj) if obj is not None else None, served(row, ctx.old) if ctx.old is not None else None
    if row is ctx.resource:
        return obj, ctx.old
    states = [state for state in (obj, ctx.old) if state is not None]
    converted = iter(await row.remote.convert([copy.deepcopy(state) for state in states], row.kind.api_version))
    return next(converted) if obj is not None else None, next(converted) if ctx.old is not None else None


async def put_back(ctx: WriteContext, row: Resource, changed: dict[str, Any]) -> None:
    """Make a changed object, as the version that `row` serves, the write's object.

    What was added may be unknown to the kind, or not in its canonical form. Raises InternalError if a conversion
    webhook fails.
    """
    if ctx.operation == "CREATE" and ctx.subresource:
        # A post to a subresource (an eviction, a binding, a token): whoever handles it reads what it needs of it.
        ctx.obj = changed
        return
    row.schema.take_in(changed, "Ignore")
    if row.remote is not None:
        changed = (await row.remote.convert([changed], ctx.resource.kind.api_version))[0]
    ctx.obj = conversion.judged(row, changed)


def request_of(ctx: WriteContext, row: Resource, seen: Seen) -> dict[str, Any]:
    """The AdmissionRequest, with objects as the version that `row` serves (`seen_as`)."""
    kind, own = _body_kind(ctx, row), _body_kind(ctx, ctx.resource)
    request: dict[str, Any] = {
        "uid": new_uid(),
        "kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "resource": {"group": row.group, "version": row.version, "resource": row.plural},
        "requestKind": {"group": own.group, "version": own.version, "kind": own.kind},
        "requestResource": {
            "group": ctx.resource.group,
            "version": ctx.resource.version,
            "resource": ctx.resource.plural,
        },
        "name": ctx.name,
        "operation": ctx.operation,
        "userInfo": user_info(ctx.user),
        "dryRun": ctx.dry_run,
        "object": seen[0],
        "oldObject": seen[1],
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


def _body_kind(ctx: WriteContext, row: Resource) -> Kind:
    """What kind the body is: of streams and of posts to a subresource that one's own (PodExecOptions, Eviction)."""
    sub = row.subresources.get(ctx.subresource) if ctx.subresource else None
    return sub.kind if sub is not None and ctx.operation in ("CONNECT", "CREATE") else row.kind


def served(row: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    """A stored object as `row` serves it, with its kind in it."""
    if row.as_stored or not row.storage or obj.get("kind") != row.kind.kind:
        return obj
    version = int(obj["metadata"].get("resourceVersion") or 0)
    return codec.decode(codec.reversion(row, codec.splice(row.head, version, codec.encode_tail(obj))))
