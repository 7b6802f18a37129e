"""Binder, provisioner, expander and the two protections, as controllers of their own on shared informers."""

from __future__ import annotations

from typing import Any, ClassVar

from machinery.api import kinds
from machinery.api.kinds import Kind
from machinery.api.quantity import parse_quantity
from services.controller_manager.actions import NORMAL, WARNING, Action, Emit, Patch, Plan, status_patch
from services.controller_manager.controllers.persistent_volume import claim_plan, local_path, protection, volume_plan
from services.controller_manager.controllers.persistent_volume.binding import (
    BIND_COMPLETED,
    PROVISIONER,
    SELECTED_NODE,
    class_of,
)
from services.controller_manager.informers import CLAIM, claims_of
from services.controller_manager.pods import is_terminal
from services.controller_manager.reconciler import OfKind, Reconciler, reference
from services.controller_manager.views.cluster import PersistentVolume, PersistentVolumeClaim, StorageClass
from services.controller_manager.views.pod import Pod

_VOLUME = "volume/"
_CLAIM = "claim/"


class PersistentVolumeBinder(Reconciler):
    """persistentvolume-binder"""

    name = "persistentvolume-binder"
    component = "persistentvolume-controller"

    # One pass at a time: two claims must not be promised the same volume.
    workers = 1

    def watch(self) -> None:
        """Claims, volumes and classes; a volume that becomes free may be what some claim waits for."""
        self.on(kinds.PERSISTENT_VOLUME_CLAIM, self._on_claim)
        self.on(kinds.PERSISTENT_VOLUME, self._on_volume)
        self.on(kinds.STORAGE_CLASS, lambda old, new: self._unbound())
        self.on(kinds.POD, self._on_pod)

    def keys(self) -> list[str]:
        """All claims and volumes."""
        claims = [_CLAIM + claim.metadata.key for claim in self.lister(kinds.PERSISTENT_VOLUME_CLAIM)]
        return claims + [_VOLUME + volume.metadata.name for volume in self.lister(kinds.PERSISTENT_VOLUME)]

    def _on_claim(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        claim = new or old
        assert claim is not None
        self.add(_CLAIM + claim.metadata.key)
        if claim.spec.volumeName:
            self.add(_VOLUME + claim.spec.volumeName)
        if new is None:
            for volume in self.lister(kinds.PERSISTENT_VOLUME):
                if volume.spec.claimRef is not None and volume.spec.claimRef.uid == claim.metadata.uid:
                    self.add(_VOLUME + volume.metadata.name)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        """What a claim waits for is another thing once a pod uses it."""
        if old is None and new is not None and not new.spec.nodeName:
            for key in claims_of(new):
                self.add(_CLAIM + key)

    def _on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        volume = new or old
        assert volume is not None
        self.add(_VOLUME + volume.metadata.name)
        owner = volume.spec.claimRef
        if owner is not None:
            self.add(f"{_CLAIM}{owner.namespace}/{owner.name}")
        else:
            self._unbound()

    def _unbound(self) -> None:
        for claim in self.lister(kinds.PERSISTENT_VOLUME_CLAIM):
            if not claim.metadata.annotations.get(BIND_COMPLETED):
                self.add(_CLAIM + claim.metadata.key)

    def subject(self, key: str) -> dict[str, Any] | None:
        """The claim or the volume."""
        kind = kinds.PERSISTENT_VOLUME_CLAIM if key.startswith(_CLAIM) else kinds.PERSISTENT_VOLUME
        obj = self.lister(kind).by_key(key.partition("/")[2])
        return reference(kind, obj.metadata) if obj is not None else None

    async def reconcile(self, key: str) -> Plan | None:
        """See `claim_plan` and `volume_plan`."""
        name = key.partition("/")[2]
        if key.startswith(_VOLUME):
            return await self._volume(name)
        claim: PersistentVolumeClaim | None = self.lister(kinds.PERSISTENT_VOLUME_CLAIM).by_key(name)
        if claim is None or claim.metadata.deletionTimestamp is not None:
            return None
        classes = {each.metadata.name: each for each in self.lister(kinds.STORAGE_CLASS)}
        users = self.lister(kinds.POD).by_index(CLAIM, name)
        unscheduled = [pod.metadata.name for pod in users if not pod.spec.nodeName and not is_terminal(pod)]
        return claim_plan.plan(claim, self.lister(kinds.PERSISTENT_VOLUME).list(), classes, unscheduled)

    async def _volume(self, name: str) -> Plan | None:
        volume: PersistentVolume | None = self.lister(kinds.PERSISTENT_VOLUME).by_key(name)
        if volume is None:
            return None
        owner = volume.spec.claimRef
        claim: PersistentVolumeClaim | None = None
        if owner is not None and owner.uid:
            claim = self.lister(kinds.PERSISTENT_VOLUME_CLAIM).get(owner.namespace, owner.name)
            # Data may be deleted by what follows, so the cache's word is not enough.
            if claim is None and await self.lives(
                kinds.PERSISTENT_VOLUME_CLAIM, owner.namespace, owner.name, owner.uid
            ):
                return Plan(requeue_after=1)
        return volume_plan.plan(volume, claim)


class LocalPathProvisioner(OfKind):
    """local-path-provisioner"""

    name = "local-path-provisioner"
    component = "cutaway.dev/local-path"
    kind: ClassVar[Kind] = kinds.PERSISTENT_VOLUME_CLAIM

    def watch(self) -> None:
        """Claims that name this provisioner, its released volumes, and the pods that remove their directories."""
        self.on_own(self.kind)
        self.on(kinds.PERSISTENT_VOLUME, self._on_volume)
        self.on(kinds.POD, self._on_pod)
        for kind in (kinds.NODE, kinds.STORAGE_CLASS):
            self.informers.of(kind)

    def _on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if new is not None and local_path.is_ours(new):
            self.add(_VOLUME + new.metadata.name)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        name = new.metadata.labels.get("cutaway.dev/removes-volume") if new is not None else None
        if name:
            self.add(_VOLUME + name)

    async def reconcile(self, key: str) -> Plan | None:
        """Make the volume of a claim, or remove one."""
        if key.startswith(_VOLUME):
            return self._reclaim(key.removeprefix(_VOLUME))
        claim: PersistentVolumeClaim | None = self.lister(self.kind).by_key(key)
        if claim is None or claim.spec.volumeName or claim.metadata.deletionTimestamp is not None:
            return None
        if claim.metadata.annotations.get(PROVISIONER) != local_path.NAME:
            return None
        storage_class: StorageClass | None = self.lister(kinds.STORAGE_CLASS).by_key(class_of(claim))
        if storage_class is None or self.lister(kinds.PERSISTENT_VOLUME).by_key(local_path.volume_name(claim)):
            return None
        node = self.lister(kinds.NODE).by_key(claim.metadata.annotations.get(SELECTED_NODE, ""))
        return local_path.provision(claim, storage_class, node, self.env.config.local_path)

    def subject(self, key: str) -> dict[str, Any] | None:
        """The claim or the volume."""
        if not key.startswith(_VOLUME):
            return super().subject(key)
        volume = self.lister(kinds.PERSISTENT_VOLUME).by_key(key.removeprefix(_VOLUME))
        return reference(kinds.PERSISTENT_VOLUME, volume.metadata) if volume is not None else None

    def _reclaim(self, name: str) -> Plan | None:
        volume: PersistentVolume | None = self.lister(kinds.PERSISTENT_VOLUME).by_key(name)
        if volume is None or not local_path.is_ours(volume) or volume.metadata.deletionTimestamp is not None:
            return None
        remover = self.lister(kinds.POD).get(*local_path.remover_key(name))
        return local_path.reclaim(volume, remover, self.env.config.local_path_remover_image)


class VolumeExpander(OfKind):
    """persistentvolume-expander"""

    name = "persistentvolume-expander"
    component = "volume_expand"
    kind = kinds.PERSISTENT_VOLUME_CLAIM

    def watch(self) -> None:
        """Claims, and their volumes, which may be seen after the claim that is bound to them."""
        self.on_own(self.kind)
        self.on(kinds.PERSISTENT_VOLUME, self._on_volume)

    def _on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        if old is None and new is not None and new.spec.claimRef is not None:
            self.add(f"{new.spec.claimRef.namespace}/{new.spec.claimRef.name}")

    async def reconcile(self, key: str) -> Plan | None:
        """A directory has no size.

        Its volume is as large as somebody asks for, and nothing need be attached for that.
        """
        claim: PersistentVolumeClaim | None = self.lister(self.kind).by_key(key)
        if claim is None or claim.status.get("phase") != "Bound" or claim.metadata.deletionTimestamp is not None:
            return None
        asked = claim.spec.resources.requests.get("storage", "0")
        has = (claim.status.get("capacity") or {}).get("storage", "0")
        if parse_quantity(asked) <= parse_quantity(has):
            return None
        volume: PersistentVolume | None = self.lister(kinds.PERSISTENT_VOLUME).by_key(claim.spec.volumeName)
        if volume is None or volume.spec.claimRef is None or volume.spec.claimRef.uid != claim.metadata.uid:
            return None
        if not local_path.is_ours(volume):
            text = "waiting for an external controller to expand this PVC"
            return Plan([Emit(WARNING, "ExternalExpanding", text)])
        capacity = {"storage": asked}
        actions: list[Action] = []
        if volume.spec.capacity.get("storage") != asked:
            meta = volume.metadata
            patch = {"spec": {"capacity": capacity}}
            actions.append(Patch(kinds.PERSISTENT_VOLUME, "", meta.name, patch, uid=meta.uid, revision=meta.revision))
        actions += status_patch(self.kind, claim, {**claim.status, "capacity": capacity})
        actions.append(Emit(NORMAL, "VolumeResizeSuccessful", "Resize volume succeeded"))
        return Plan(actions)


class ClaimProtection(OfKind):
    """persistentvolumeclaim-protection-controller"""

    name = "persistentvolumeclaim-protection-controller"
    kind = kinds.PERSISTENT_VOLUME_CLAIM

    def watch(self) -> None:
        """Claims, and pods that end."""
        self.on_own(self.kind)
        self.on(kinds.POD, self._on_pod)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if new is not None and old is not None and old.status.phase == new.status.phase:
            return
        for key in claims_of(pod):
            self.add(key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `protection`."""
        claim: PersistentVolumeClaim | None = self.lister(self.kind).by_key(key)
        if claim is None:
            return None
        actions = protection.of_claim(claim, self.lister(kinds.POD).by_index(CLAIM, key))
        if actions and claim.metadata.deletionTimestamp is not None:
            # A claim that is let go is gone for good, and a pod that uses it may not have been seen yet.
            pods = await self.listed(kinds.POD, claim.metadata.namespace)
            actions = protection.of_claim(claim, [pod for pod in pods if key in claims_of(pod)])
        return Plan(actions)


class VolumeProtection(OfKind):
    """persistentvolume-protection-controller"""

    name = "persistentvolume-protection-controller"
    kind = kinds.PERSISTENT_VOLUME

    def watch(self) -> None:
        """Volumes."""
        self.on_own(self.kind)

    async def reconcile(self, key: str) -> Plan | None:
        """See `protection`."""
        volume: PersistentVolume | None = self.lister(self.kind).by_key(key)
        return Plan(protection.of_volume(volume)) if volume is not None else None


class AttributesClassProtection(OfKind):
    """volumeattributesclass-protection-controller"""

    name = "volumeattributesclass-protection-controller"
    kind = kinds.VOLUME_ATTRIBUTES_CLASS

    def watch(self) -> None:
        """Classes, and claims and volumes that let go of one."""
        self.on_own(self.kind)
        self.on(kinds.PERSISTENT_VOLUME_CLAIM, self._on_claim)
        self.on(kinds.PERSISTENT_VOLUME, self._on_volume)

    def _on_claim(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        before = protection.classes_of(old) if old is not None else set()
        for name in before - (protection.classes_of(new) if new is not None else set()):
            self.add(name)

    def _on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        name = old.spec.volumeAttributesClassName if old is not None else ""
        if name and (new is None or new.spec.volumeAttributesClassName != name):
            self.add(name)

    async def reconcile(self, key: str) -> Plan | None:
        """See `protection`."""
        found = self.lister(self.kind).by_key(key)
        if found is None:
            return None
        users = kinds.PERSISTENT_VOLUME_CLAIM, kinds.PERSISTENT_VOLUME
        actions = protection.of_class(found.metadata, *(self.lister(kind) for kind in users))
        if actions and found.metadata.deletionTimestamp is not None:
            # As for claims.
            actions = protection.of_class(found.metadata, *[await self.listed(kind) for kind in users])
        return Plan(actions)


class EphemeralVolumes(OfKind):
    """ephemeral-volume-controller"""

    name = "ephemeral-volume-controller"
    kind = kinds.POD

    def watch(self) -> None:
        """Pods with claim templates among their volumes."""
        self.on(kinds.POD, self._on_pod)
        self.informers.of(kinds.PERSISTENT_VOLUME_CLAIM)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None and any(volume.ephemeral is not None for volume in new.spec.volumes):
            self.add(new.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """See `protection.ephemeral_claims`."""
        pod: Pod | None = self.lister(self.kind).by_key(key)
        if pod is None or pod.metadata.deletionTimestamp is not None:
            return None
        claims = self.lister(kinds.PERSISTENT_VOLUME_CLAIM)
        return Plan(protection.ephemeral_claims(pod, lambda name: claims.get(pod.metadata.namespace, name)))
