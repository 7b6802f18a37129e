"""What becomes of an object some of whose owners are gone: nothing, fewer owners, or deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from machinery.api.kinds import Kind
from services.controller_manager.actions import Action, Delete, Patch
from services.controller_manager.controllers.garbage_collector.graph import FOREGROUND, ORPHAN, Node
from services.controller_manager.ownership import ownership_patch, references, without_owners
from services.controller_manager.views.meta import Meta


class Owner(Enum):
    """What a live look at an owner found."""

    SOLID = "exists and stays"
    ABSENT = "does not exist"
    WAITING = "is being deleted in the foreground and waits for its dependents"


def judge(kind: Kind, meta: Meta, owners: Mapping[str, Owner], dependents: Sequence[Node]) -> list[Action]:
    """The writes for an object that is not being deleted itself.

    `meta` is its live state; `owners` by uid, one for each reference.
    """
    if not meta.ownerReferences:
        return []
    gone = {ref.uid for ref in meta.ownerReferences if owners.get(ref.uid) is not Owner.SOLID}
    if len(gone) < len({ref.uid for ref in meta.ownerReferences}):
        return [without_owners(kind, meta, gone)] if gone else []
    if dependents and any(state is Owner.WAITING for state in owners.values()):
        # Its owner waits for it, so it in turn has to wait for its own dependents. In a loop nobody would ever stop
        # waiting: the dependent that already waits is told not to block.
        actions: list[Action] = []
        if any(dependent.deleting_dependents for dependent in dependents):
            actions.append(_not_blocking(kind, meta))
        return [*actions, _delete(kind, meta, "Foreground", revision=0 if actions else meta.revision)]
    return [_delete(kind, meta, _policy(meta), revision=meta.revision)]


def _policy(meta: Meta) -> str:
    """What an earlier request asked for stays; otherwise dependents follow by themselves."""
    if ORPHAN in meta.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in meta.finalizers else "Background"


def _delete(kind: Kind, meta: Meta, propagation: str, *, revision: int) -> Delete:
    # The revision makes sure that no owner was added since the look that this was decided on.
    return Delete(kind, meta.namespace, meta.name, uid=meta.uid, revision=revision, propagation=propagation)


def _not_blocking(kind: Kind, meta: Meta) -> Patch:
    owners = [each | {"blockOwnerDeletion": False} for each in references(meta.ownerReferences)]
    return ownership_patch(kind, meta, {"ownerReferences": owners})


def blocking(node_uid: str, dependents: Sequence[Node]) -> list[Node]:
    """The dependents that an owner which is deleted in the foreground has to wait for."""
    return [dependent for dependent in dependents if dependent.blocks(node_uid)]


def without_finalizer(kind: Kind, meta: Meta, finalizer: str) -> list[Action]:
    """Take one finalizer off, once all that comes before is done: none if it is not there."""
    if finalizer not in meta.finalizers:
        return []
    kept = [name for name in meta.finalizers if name != finalizer] or None
    patch = {"metadata": {"finalizers": kept}}
    # In one Batch with them it would come off though a dependent could not be let go, and that would be deleted.
    return [Patch(kind, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision, alone=True)]
