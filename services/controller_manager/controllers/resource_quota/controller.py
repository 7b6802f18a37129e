"""Counts again when something that a quota limits has gone. What is added, admission has counted already."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from machinery.client.informer import wait_synced
from services.controller_manager.actions import Plan, status_patch
from services.controller_manager.controllers.crd_cleanup.controller import kind_of
from services.controller_manager.controllers.resource_quota.usage import DEVICES_SUFFIX, Contents, used
from services.controller_manager.pods import is_terminal
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import CustomResourceDefinition, PersistentVolumeClaim, ResourceQuota
from services.controller_manager.views.pod import Pod

# Admission writes the quota before the object that it counts. Within this time the object has surely arrived here.
_SETTLE_SECONDS = 0.2
_RESYNC_SECONDS = 300.0
_FIRST_SECONDS = 1.0
"""After the first count of new limits."""
_SYNC_SECONDS_MAX = 10.0
_FOLLOWED = (
    kinds.POD,
    kinds.SERVICE,
    kinds.PERSISTENT_VOLUME_CLAIM,
    kinds.CONFIG_MAP,
    kinds.SECRET,
    kinds.REPLICATION_CONTROLLER,
)


class ResourceQuotaController(OfKind):
    """resourcequota"""

    name = "resourcequota"
    kind = kinds.RESOURCE_QUOTA

    def watch(self) -> None:
        """Quotas, and the kinds that are limited most; others are followed once a quota names them."""
        self._followed: set[Kind] = set()
        self.on(kinds.RESOURCE_QUOTA, self._on_quota)
        self.on(kinds.CUSTOM_RESOURCE_DEFINITION, self._on_definition)
        for kind in _FOLLOWED:
            self._follow(kind)

    def _on_quota(self, old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        # Not for a changed `used`: that is admission, which counts an object just before it appears. To count at that
        # moment would take its count back.
        if new is not None and (old is None or old.spec != new.spec or new.status.get("hard") != new.spec.hard):
            self.add(new.metadata.key)

    def _on_definition(self, old: CustomResourceDefinition | None, new: CustomResourceDefinition | None) -> None:
        definition = new or old
        assert definition is not None
        kind = kind_of(definition)
        if new is None and kind in self._followed:
            self._followed.discard(kind)
            self.informers.drop(kind)
        elif old is None:
            counted = f"count/{definition.metadata.name}"
            for quota in self.lister(kinds.RESOURCE_QUOTA):
                if counted in quota.spec.hard:
                    self.add(quota.metadata.key)

    def _follow(self, kind: Kind) -> None:
        if kind not in self._followed:
            self._followed.add(kind)
            self.on(kind, self._on_change)

    def _on_change(self, old: Any, new: Any) -> None:
        ended = isinstance(new, Pod) and old is not None and is_terminal(new) and not is_terminal(old)
        changed = new is not None and old is not None and new.metadata.generation != old.metadata.generation
        if isinstance(new, PersistentVolumeClaim) and old is not None:
            # They have no generation; by its classes of attributes a claim comes and goes from quotas' scopes.
            changed = (new.spec, new.status) != (old.spec, old.status)
        if new is not None and not ended and not changed:
            return
        for quota in self.lister(kinds.RESOURCE_QUOTA).list((new or old).metadata.namespace):
            self.controller.queue.add_after(quota.metadata.key, _SETTLE_SECONDS)

    async def reconcile(self, key: str) -> Plan | None:
        """Write `hard` and `used`."""
        quota: ResourceQuota | None = self.lister(kinds.RESOURCE_QUOTA).by_key(key)
        if quota is None:
            return None
        namespace = quota.metadata.namespace
        for name in quota.spec.hard:
            if name.endswith(DEVICES_SUFFIX):
                kind: Kind | None = kinds.RESOURCE_CLAIM
            else:
                kind = self._kind(name.removeprefix("count/")) if name.startswith("count/") else None
            if kind is not None and kind not in self._followed:
                self._follow(kind)
                await wait_synced(self.informers.of(kind), timeout=_SYNC_SECONDS_MAX)
        contents = Contents(
            self.lister(kinds.POD).list(namespace),
            self.lister(kinds.SERVICE).list(namespace),
            self.lister(kinds.PERSISTENT_VOLUME_CLAIM).list(namespace),
            lambda resource: self._count(namespace, resource),
            self.lister(kinds.RESOURCE_CLAIM).list(namespace) if kinds.RESOURCE_CLAIM in self._followed else (),
        )
        status = {**quota.status, "hard": quota.spec.hard, "used": used(quota.spec, contents)}
        # What was there before the quota is counted by nobody else, and may arrive here after it.
        again = _RESYNC_SECONDS if quota.status.get("hard") == quota.spec.hard else _FIRST_SECONDS
        return Plan(status_patch(kinds.RESOURCE_QUOTA, quota, status), requeue_after=again)

    def _kind(self, resource: str) -> Kind | None:
        found = next((kind for kind in kinds.BUILTIN if kind.resource == resource), None)
        if found is None:
            # A definition's name is that of its resource.
            definition = self.lister(kinds.CUSTOM_RESOURCE_DEFINITION).get("", resource)
            found = kind_of(definition) if definition is not None else None
        return found if found is not None and found.namespaced else None

    def _count(self, namespace: str, resource: str) -> int:
        kind = self._kind(resource)
        return len(self.lister(kind).list(namespace)) if kind is not None and self.informers.known(kind) else 0
