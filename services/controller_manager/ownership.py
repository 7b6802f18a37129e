"""Who controls whom: adopt what matches and has no controller, release what matches no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from machinery.api.kinds import Kind
from services.controller_manager.actions import Action, Patch
from services.controller_manager.templates import owner_reference
from services.controller_manager.views.meta import OwnerReference

T = TypeVar("T")


@dataclass(slots=True)
class Claims(Generic[T]):
    """`owned` counts what is ours after the changes. Adoptions need a fresh look at the owner first (`adopts`)."""

    owned: list[T] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    adopts: bool = False


def claim(
    kind: Kind,
    owner: Any,
    matches: Callable[[dict[str, str]], bool],
    dependent_kind: Kind,
    candidates: Iterable[T],
    *,
    wanted: Callable[[T], bool] = lambda _: True,
    finalizers: tuple[str, ...] = (),
) -> Claims[T]:
    """Sort candidates into ours and not ours. `owner` and the candidates are views.

    A dependent keeps its other owners; the controller's own reference (and its finalizers) is all that is added or
    removed. An owner that is being deleted releases, but adopts nothing.
    """
    claims: Claims[T] = Claims()
    meta = owner.metadata
    for candidate in candidates:
        other = candidate.metadata  # type: ignore[attr-defined]
        controller = other.controller
        fits = matches(other.labels) and wanted(candidate)
        if controller is not None:
            if controller.uid != meta.uid:
                continue
            if fits:
                claims.owned.append(candidate)
            elif meta.deletionTimestamp is None:
                claims.actions.append(_release(dependent_kind, other, meta.uid, finalizers))
        elif fits and meta.deletionTimestamp is None and other.deletionTimestamp is None:
            claims.actions.append(_adopt(kind, meta, dependent_kind, other, finalizers))
            claims.adopts = True
            claims.owned.append(candidate)
    return claims


def references(owners: Iterable[OwnerReference]) -> list[dict[str, Any]]:
    """Owner references as they are written back: what one does not say is not said for it."""
    return [{name: value for name, value in msgspec.to_builtins(each).items() if value is not None} for each in owners]


def _adopt(kind: Kind, owner: Any, dependent_kind: Kind, meta: Any, finalizers: tuple[str, ...]) -> Patch:
    metadata: dict[str, Any] = {"ownerReferences": [*references(meta.ownerReferences), owner_reference(kind, owner)]}
    if missing := [name for name in finalizers if name not in meta.finalizers]:
        metadata["finalizers"] = [*meta.finalizers, *missing]
    return ownership_patch(dependent_kind, meta, metadata)


def _release(dependent_kind: Kind, meta: Any, owner_uid: str, finalizers: tuple[str, ...]) -> Patch:
    return without_owners(dependent_kind, meta, {owner_uid}, finalizers)


def without_owners(kind: Kind, meta: Any, uids: set[str], finalizers: tuple[str, ...] = ()) -> Patch:
    """The patch that removes the references to these owners (and these finalizers) from the object of `meta`."""
    kept = [entry for entry in references(meta.ownerReferences) if entry["uid"] not in uids]
    metadata: dict[str, Any] = {"ownerReferences": kept or None}
    if any(name in meta.finalizers for name in finalizers):
        metadata["finalizers"] = [name for name in meta.finalizers if name not in finalizers] or None
    return ownership_patch(kind, meta, metadata)


def ownership_patch(kind: Kind, meta: Any, metadata: dict[str, Any]) -> Patch:
    """The patch of the object of `meta` that gives it these owner references, and what else `metadata` says."""
    # Lists are replaced whole, so the patch must fail if somebody else changed the object meanwhile.
    return Patch(kind, meta.namespace, meta.name, {"metadata": metadata}, uid=meta.uid, revision=meta.revision)
