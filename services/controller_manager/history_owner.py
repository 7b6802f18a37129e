"""The shell that DaemonSets and StatefulSets share.

Pods and ControllerRevisions by owner, adopted and released by label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from machinery.api import kinds
from machinery.api.errors import AlreadyExists
from machinery.api.kinds import Kind
from machinery.client.controller import Result
from services.controller_manager.actions import status_patch
from services.controller_manager.informers import OWNER, orphans_of
from services.controller_manager.ownership import claim
from services.controller_manager.reconciler import OfKind


class HistoryOwner(OfKind):
    """A controller of a kind that owns pods and revisions."""

    def watch_owned(self) -> None:
        """Queue the owner on changes of itself, its pods and revisions, and of pods that it might adopt."""
        self.on_own(self.kind)
        for kind in (kinds.POD, kinds.CONTROLLER_REVISION):
            self.on(kind, self.controller.enqueue_owner(self.kind.kind))
        self.on(kinds.POD, self._on_orphan)

    def _on_orphan(self, old: Any, new: Any) -> None:
        if new is None or new.metadata.controller is not None or new.metadata.deletionTimestamp is not None:
            return
        for owner in self.lister(self.kind).list(new.metadata.namespace):
            if not owner.spec.selector.empty and owner.spec.selector.matches(new.metadata.labels):
                self.add(owner.metadata.key)

    async def owned(
        self, key: str, owner: Any, kind: Kind, wanted: Callable[[Any], bool] = lambda _: True
    ) -> list[Any]:
        """The objects of a kind that the owner controls, after adoption and release."""
        lister = self.lister(kind)
        orphans = lister.by_index(OWNER, orphans_of(owner.metadata.namespace))
        candidates = [*lister.by_index(OWNER, owner.metadata.uid), *orphans]
        claims = claim(self.kind, owner, owner.spec.selector.matches, kind, candidates, wanted=wanted)
        return await self.claimed(key, self.kind, owner.metadata, claims)

    async def _reconcile(self, key: str) -> Result | None:
        try:
            return await super()._reconcile(key)
        except AlreadyExists as err:
            # A revision's name is taken by another content: the next hash is counted on.
            owner = self.lister(self.kind).by_key(key)
            if owner is None or err.resource != "controllerrevisions":
                raise
            count = int(owner.status.get("collisionCount") or 0) + 1
            await self.apply(key, None, status_patch(self.kind, owner, {**owner.status, "collisionCount": count}))
            raise
