"""Who owns whom, over all kinds: a graph fed by watches, with no I/O.

A node is an object by its uid. An owner that only its dependents speak of is a *virtual* node: it may be absent, or of
a kind whose watch has not told of it yet, so that somebody has to look (`absent owners`).

        observed ADDED/MODIFIED ──► node (real) ──► observed DELETED ──► gone; its dependents are looked at
        named as an owner ────────► node (virtual) ── live GET says gone ──► gone

Invariant: `owner.dependents` holds exactly the nodes one of whose owner references names that uid.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from machinery.api.kinds import Kind
from services.controller_manager.views.meta import Meta, OwnerReference

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an object is found. For a virtual node the kind is what a reference claims."""

    kind: Kind
    namespace: str
    name: str


_NOBODY: Set[str] = frozenset()
"""The dependents of most objects. An empty set for each would be the largest part of the graph."""


@dataclass(slots=True, eq=False)
class Node:
    """One object of the graph."""

    uid: str
    identity: Identity | None
    virtual: bool = False
    being_deleted: bool = False
    deleting_dependents: bool = False
    orphaning: bool = False
    owners: tuple[OwnerReference, ...] = ()
    dependents: Set[str] = _NOBODY

    def blocks(self, owner_uid: str) -> bool:
        """Whether this dependent keeps its owner from going while it is deleted in the foreground."""
        return any(ref.uid == owner_uid and ref.blockOwnerDeletion for ref in self.owners)


class Graph:
    """The graph. `delete` and `orphan` are called with the uid of a node that ought to be judged."""

    def __init__(self, delete: Callable[[str], None], orphan: Callable[[str], None]) -> None:
        self.nodes: dict[str, Node] = {}
        self._judge = delete
        self._orphan = orphan
        # Owners that a live look found absent: a later reference to them need not be looked up again.
        self.absent: dict[str, None] = {}

    def observe(self, kind: Kind, meta: Meta) -> None:
        """The object exists in this state."""
        node = self.nodes.get(meta.uid)
        if node is None:
            node = self.nodes[meta.uid] = Node(meta.uid, None)
        was_deleting, was_orphaning, was_real = (
            node.deleting_dependents,
            node.orphaning,
            node.identity and not node.virtual,
        )
        node.identity = Identity(kind, meta.namespace, meta.name)
        node.virtual = False
        node.being_deleted = meta.deletionTimestamp is not None
        node.deleting_dependents = node.being_deleted and FOREGROUND in meta.finalizers
        node.orphaning = node.being_deleted and ORPHAN in meta.finalizers
        old_owners = node.owners
        if old_owners != meta.ownerReferences:
            self._relink(node, meta.ownerReferences)
            self._unblocked(old_owners, node)
        if node.orphaning and not was_orphaning:
            self._orphan(node.uid)
        for ref in node.owners:
            # To let it go in its former state may have been refused.
            owner = self.nodes.get(ref.uid)
            if owner is not None and owner.orphaning:
                self._orphan(owner.uid)
        if node.deleting_dependents and not was_deleting:
            for uid in node.dependents:
                self._judge(uid)
            self._judge(node.uid)
        # A new object may have an owner that is gone already, and an object whose owners changed may have lost its last
        # one.
        if node.owners and (not was_real or old_owners != node.owners):
            self._judge(node.uid)

    def remove(self, uid: str) -> None:
        """The object is gone: its dependents lose an owner, its own owners a dependent."""
        node = self.nodes.pop(uid, None)
        if node is None:
            return
        self.absent[uid] = None
        if len(self.absent) > _ABSENT_MAX:
            del self.absent[next(iter(self.absent))]
        self._unlink(node, node.owners)
        for dependent in node.dependents:
            self._judge(dependent)
        if node.dependents:
            # Keep what names this owner findable until its references are gone.
            self.nodes[uid] = Node(uid, node.identity, virtual=True, dependents=node.dependents)
        self._unblocked(node.owners, None)

    def dependents(self, uid: str) -> list[Node]:
        """The nodes that name this owner."""
        node = self.nodes.get(uid)
        return [self.nodes[other] for other in node.dependents if other in self.nodes] if node else []

    def _relink(self, node: Node, owners: tuple[OwnerReference, ...]) -> None:
        self._unlink(node, node.owners)
        node.owners = owners
        for ref in owners:
            owner = self.nodes.get(ref.uid)
            if owner is None:
                owner = self.nodes[ref.uid] = Node(ref.uid, None, virtual=True)
            if not isinstance(owner.dependents, set):
                owner.dependents = set()
            owner.dependents.add(node.uid)

    def _unlink(self, node: Node, owners: tuple[OwnerReference, ...]) -> None:
        for ref in owners:
            owner = self.nodes.get(ref.uid)
            if owner is None:
                continue
            if isinstance(owner.dependents, set):
                owner.dependents.discard(node.uid)
                if not owner.dependents:
                    owner.dependents = _NOBODY
            if owner.virtual and not owner.dependents:
                del self.nodes[ref.uid]

    def _unblocked(self, owners: tuple[OwnerReference, ...], node: Node | None) -> None:
        """Owners that wait for their dependents have perhaps one fewer to wait for."""
        for ref in owners:
            owner = self.nodes.get(ref.uid)
            if owner is not None and owner.deleting_dependents and (node is None or not node.blocks(ref.uid)):
                self._judge(ref.uid)


# Enough to spare look-ups while a burst of dependents of one gone owner is collected.
_ABSENT_MAX = 500
