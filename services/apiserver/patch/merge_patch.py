"""JSON merge patch, RFC 7386."""

from __future__ import annotations

from typing import Any


def apply(doc: Any, patch: Any) -> Any:
    """`doc` with `patch` merged in: objects merge, null removes, everything else replaces. Neither input is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(doc) if isinstance(doc, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = apply(merged.get(name), value)
    return merged


def diff(old: Any, new: Any) -> Any:
    """The merge patch that turns `old` into `new` (whose objects hold no nulls)."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old:
            patch[name] = value
        elif value != old[name] or type(value) is not type(old[name]):
            patch[name] = diff(old[name], value)
    return patch
