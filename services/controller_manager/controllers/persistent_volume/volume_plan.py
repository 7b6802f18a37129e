"""A volume's own state: available, bound, released; and what its reclaim policy says then."""

from __future__ import annotations

from machinery.api import kinds
from services.controller_manager.actions import WARNING, Action, Emit, Patch, Plan
from services.controller_manager.controllers.persistent_volume.binding import BOUND_BY_CONTROLLER, PROVISIONED_BY
from services.controller_manager.views.cluster import PersistentVolume, PersistentVolumeClaim


def plan(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> Plan:
    """The next step. `claim` is the one that claimRef means, by namespace and name."""
    reference = volume.spec.claimRef
    if reference is None or not reference.uid:
        return Plan(_phase(volume, "Available"))
    if claim is None or claim.metadata.uid != reference.uid:
        return Plan(_released(volume))
    if claim.spec.volumeName == volume.metadata.name:
        return Plan(_phase(volume, "Bound"))
    if claim.spec.volumeName and volume.metadata.annotations.get(BOUND_BY_CONTROLLER):
        # The claim has got another volume: this one was reserved for it in vain.
        meta = volume.metadata
        patch = {"metadata": {"annotations": {BOUND_BY_CONTROLLER: None}}, "spec": {"claimRef": None}}
        free = Patch(kinds.PERSISTENT_VOLUME, "", meta.name, patch, uid=meta.uid, revision=meta.revision)
        return Plan([free, *_phase(volume, "Available")])
    return Plan(_phase(volume, volume.status.get("phase") or "Available"))


def _released(volume: PersistentVolume) -> list[Action]:
    actions = _phase(volume, "Released") if volume.status.get("phase") != "Failed" else []
    if volume.metadata.deletionTimestamp is not None:
        return actions
    policy = volume.spec.persistentVolumeReclaimPolicy
    maker = volume.metadata.annotations.get(PROVISIONED_BY, "")
    if policy == "Delete" and not maker and volume.spec.csi is None:
        text = "error getting deleter volume plugin for volume: no deletable volume plugin matched"
        return [*_phase(volume, "Failed", text), Emit(WARNING, "VolumeFailedDelete", text)] if actions else []
    if policy == "Recycle":
        text = "No recycler plugin found for the volume!"
        return [*_phase(volume, "Failed", text), Emit(WARNING, "VolumeFailedRecycle", text)] if actions else []
    return actions


def _phase(volume: PersistentVolume, phase: str, message: str = "") -> list[Action]:
    if volume.status.get("phase") == phase:
        return []
    meta = volume.metadata
    patch = {"status": {"phase": phase, "message": message or None}}
    return [Patch(kinds.PERSISTENT_VOLUME, "", meta.name, patch, "status", uid=meta.uid, revision=meta.revision)]
