"""Deletes the objects of a CustomResourceDefinition that is being deleted, then lets the definition go."""

from __future__ import annotations

from typing import Any

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from services.controller_manager.actions import Patch, Plan
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import CustomResourceDefinition

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_RETRY_SECONDS = 1.0


def kind_of(definition: CustomResourceDefinition) -> Kind | None:
    """The kind that is defined, at a version that is served."""
    spec: dict[str, Any] = definition.spec
    names = spec.get("names") or {}
    served = [version.get("name", "") for version in spec.get("versions") or () if version.get("served")]
    if not served or not names.get("plural"):
        return None
    namespaced = spec.get("scope") == "Namespaced"
    return Kind(spec.get("group", ""), served[0], names.get("kind", ""), names["plural"], namespaced)


class CrdCleanupController(OfKind):
    """customresourcedefinition-cleanup"""

    name = "customresourcedefinition-cleanup"
    kind = kinds.CUSTOM_RESOURCE_DEFINITION

    def watch(self) -> None:
        """Definitions."""
        self.on_own(self.kind)

    async def reconcile(self, key: str) -> Plan | None:
        """Delete what there is; take the finalizer off when nothing is left."""
        definition: CustomResourceDefinition | None = self.lister(self.kind).by_key(key)
        if definition is None or definition.metadata.deletionTimestamp is None:
            return None
        if FINALIZER not in definition.metadata.finalizers:
            return None
        kind = kind_of(definition)
        if kind is not None and not await self._empty(kind):
            return Plan(requeue_after=_RETRY_SECONDS)
        meta = definition.metadata
        kept = [name for name in meta.finalizers if name != FINALIZER] or None
        patch = {"metadata": {"finalizers": kept}}
        return Plan([Patch(self.kind, "", meta.name, patch, uid=meta.uid, revision=meta.revision)])

    async def _empty(self, kind: Kind) -> bool:
        """Begin the deletion of every object; whether none is left."""
        client = self.env.client
        try:
            found = await client.list(kind, decode=objects.decode_partial)
            for namespace in {obj.metadata.namespace for obj in found}:
                await client.delete_collection(kind, namespace)
            return not (await client.list(kind, decode=objects.decode_partial)).items
        except errors.NotFound:
            return True  # It is not served any more, so nothing of it can be left to see.
