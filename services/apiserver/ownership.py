"""metadata.managedFields: who set which field. The arithmetic is `patch.managed_fields`; here is when it is done, and
for whom."""

from __future__ import annotations

from typing import Any

from services.apiserver.patch import apply, managed_fields
from services.apiserver.registry.metadata import now_text
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Request, WriteOptions
from services.apiserver.schema import definitions
from services.apiserver.write_context import WriteContext

MANAGER_CHARS_MAX = 128

# What an endpoint resets and so nobody can own by writing there, as paths of field-set elements.
_STATUS = (("f:status",),)
_ALL_BUT_STATUS = (("f:spec",),)


def manager_of(req: Request, options: WriteOptions) -> str:
    """The field manager: as the caller says, or the first part of its user agent, as upstream."""
    if options.field_manager:
        return options.field_manager
    return req.user_agent.partition("/")[0][:MANAGER_CHARS_MAX] or "unknown"


def record_create(ctx: WriteContext) -> None:
    """Write down who created the object."""
    _record(ctx, None)


def record_update(ctx: WriteContext) -> None:
    """Write down who changed the object."""
    assert ctx.old is not None
    _record(ctx, ctx.old)


def _record(ctx: WriteContext, old: dict[str, Any] | None) -> None:
    resource = ctx.resource
    entries = managed_fields.record_update(
        _stored_node(resource), old, ctx.obj, manager=manager_of(ctx.req, ctx.options),
        api_version=_judged_version(resource), now=now_text(), subresource=ctx.subresource,
        builtin=resource.custom is None, ignored=_ignored(resource, ctx.subresource),
    )  # fmt: skip
    if entries:
        ctx.metadata["managedFields"] = entries
    else:
        ctx.metadata.pop("managedFields", None)


def apply_new(req: Request, patch: dict[str, Any], options: WriteOptions) -> dict[str, Any]:
    """An apply patch as the object that it creates."""
    return _apply(req, None, patch, options)


def apply_existing(
    req: Request, live: dict[str, Any], applied: dict[str, Any], options: WriteOptions
) -> dict[str, Any]:
    """An apply patch merged into the live object. Raises Conflict where another manager owns a field."""
    return _apply(req, live, applied, options)


def _apply(req: Request, live: dict[str, Any] | None, config: dict[str, Any], options: WriteOptions) -> dict[str, Any]:
    resource = req.resource
    # What a condition of the write is, is not a field to own.
    version = config["metadata"].pop("resourceVersion", None)
    config["metadata"].pop("uid", None)
    result = apply.apply(
        served_node(resource), live, config, manager=manager_of(req, options), api_version=resource.kind.api_version,
        now=now_text(), force=options.force, subresource=req.subresource, builtin=resource.custom is None,
        ignored=_ignored(resource, req.subresource),
    )  # fmt: skip
    if live is not None and not result.changed:
        return live
    if version:
        result.obj["metadata"]["resourceVersion"] = version
    return result.obj


def refuse_undeclared(resource: Resource, config: dict[str, Any]) -> None:
    """An apply patch may only say what its kind declares, whatever the field validation. Raises InternalError or
    BadRequest, as upstream."""
    apply.refuse_undeclared(served_node(resource), config)


def _stored_node(resource: Resource) -> Any:
    return resource.custom.node if resource.custom is not None else definitions.node_for(resource.storage_kind)


def _judged_version(resource: Resource) -> str:
    kind = resource.storage_kind if resource.remote is None else resource.kind
    return kind.api_version


def served_node(resource: Resource) -> Any:
    """The schema of a kind as it is served; None for a custom kind without one."""
    return resource.custom.node if resource.custom is not None else definitions.node_for(resource.kind)


def _ignored(resource: Resource, subresource: str) -> tuple[tuple[str, ...], ...]:
    if subresource == "status":
        return _ALL_BUT_STATUS
    return _STATUS if "status" in resource.subresources and resource.kind.kind != "Node" else ()


def plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without what the apiserver counts itself."""
    return {key: value for key, value in metadata.items() if key not in ("resourceVersion", "managedFields")}


def same(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether two metadata say the same about ownership; times do not count."""
    return _owned(new) == _owned(old)


def _owned(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in entry.items() if key != "time"} for entry in metadata.get("managedFields") or ()
    ]
