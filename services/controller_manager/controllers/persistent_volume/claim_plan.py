"""A claim's way to its volume: found, waited for, asked of a provisioner, or lost.

Binding is four writes: the volume's claimRef, the volume's phase, the claim's volumeName, the claim's phase. The first
decides (it fails if somebody else was faster); the others follow from it, whoever does them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import NORMAL, WARNING, Action, Emit, Patch, Plan, status_patch
from services.controller_manager.controllers.persistent_volume.binding import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONER,
    SELECTED_NODE,
    best,
    claim_reference,
    class_of,
    fits,
    is_for,
)
from services.controller_manager.views.cluster import PersistentVolume, PersistentVolumeClaim, StorageClass

_BETA_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
_RETRY_SECONDS = 15.0
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def plan(
    claim: PersistentVolumeClaim,
    volumes: Sequence[PersistentVolume],
    classes: Mapping[str, StorageClass],
    unscheduled: Sequence[str] = (),
) -> Plan:
    """The next step for a claim. `volumes` are all volumes, `unscheduled` the pods that use it and have no node."""
    by_name = {volume.metadata.name: volume for volume in volumes}
    if claim.metadata.annotations.get(BIND_COMPLETED):
        return Plan(_keep(claim, by_name.get(claim.spec.volumeName)))
    if claim.spec.volumeName:
        return _take_named(claim, by_name.get(claim.spec.volumeName))
    storage_class = classes.get(class_of(claim))
    late = storage_class is not None and storage_class.volumeBindingMode == "WaitForFirstConsumer"
    volume = best(claim, volumes)
    reserved = volume is not None and is_for(volume.spec.claimRef, claim)
    if late and not reserved and SELECTED_NODE not in claim.metadata.annotations:
        return Plan([*_phase(claim, "Pending"), _waiting(unscheduled)])
    if volume is not None and (reserved or not late or storage_class is None or _may_bind_late(storage_class)):
        return Plan(bind(claim, volume))
    return _provision(claim, storage_class)


def _waiting(unscheduled: Sequence[str]) -> Emit:
    if not unscheduled:
        return Emit(NORMAL, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
    pods = f"pod{'s' if len(unscheduled) > 1 else ''} {','.join(sorted(unscheduled))}"
    return Emit(NORMAL, "WaitForPodScheduled", f"waiting for {pods} to be scheduled")


def _may_bind_late(storage_class: StorageClass) -> bool:
    """With a provisioner the scheduler's choice of node asks for a new volume.

    Without one it has reserved an existing one.
    """
    return storage_class.provisioner == NO_PROVISIONER


def _provision(claim: PersistentVolumeClaim, storage_class: StorageClass | None) -> Plan:
    name = class_of(claim)
    pending = _phase(claim, "Pending")
    if not name:
        text = "no persistent volumes available for this claim and no storage class is set"
        return Plan([*pending, Emit(NORMAL, "FailedBinding", text)], requeue_after=_RETRY_SECONDS)
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return Plan([*pending, Emit(WARNING, "ProvisioningFailed", text)], requeue_after=_RETRY_SECONDS)
    if storage_class.provisioner == NO_PROVISIONER:
        text = "no persistent volumes available for this claim"
        return Plan([*pending, Emit(NORMAL, "FailedBinding", text)], requeue_after=_RETRY_SECONDS)
    wanted = {PROVISIONER: storage_class.provisioner, _BETA_PROVISIONER: storage_class.provisioner}
    if wanted.items() <= claim.metadata.annotations.items():
        return Plan(pending)
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{storage_class.provisioner}' or"
        " manually by the system administrator. If volume creation is delayed, please verify that the provisioner is"
        " running and correctly registered."
    )
    meta = claim.metadata
    patch = {"metadata": {"annotations": wanted}}
    mark = Patch(kinds.PERSISTENT_VOLUME_CLAIM, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision)
    return Plan([*pending, mark, Emit(NORMAL, "ExternalProvisioning", text)])


def _take_named(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> Plan:
    """Somebody named the volume: it is that one or none."""
    if volume is None:
        return Plan(_phase(claim, "Pending"), requeue_after=_RETRY_SECONDS)
    if volume.spec.claimRef is not None and not is_for(volume.spec.claimRef, claim):
        text = f'volume "{volume.metadata.name}" already bound to a different claim.'
        return Plan([*_phase(claim, "Pending"), Emit(WARNING, "FailedBinding", text)], requeue_after=_RETRY_SECONDS)
    if volume.spec.claimRef is None and not fits(volume, claim):
        text = f'Cannot bind to requested volume "{volume.metadata.name}": it does not meet what the claim asks for'
        return Plan([*_phase(claim, "Pending"), Emit(WARNING, "VolumeMismatch", text)], requeue_after=_RETRY_SECONDS)
    return Plan(bind(claim, volume))


def _keep(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> list[Action]:
    """A claim that was bound stays so, or has lost its volume."""
    if volume is None:
        text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return _lost(claim, "ClaimLost", text)
    reference = volume.spec.claimRef
    if reference is None or (is_for(reference, claim)):
        return bind(claim, volume)
    text = "Bound claim has lost its PersistentVolume: the volume is bound to another claim"
    return _lost(claim, "ClaimMisbound", text)


def _lost(claim: PersistentVolumeClaim, reason: str, text: str) -> list[Action]:
    if claim.status.get("phase") == "Lost":
        return []
    return [*_phase(claim, "Lost"), Emit(WARNING, reason, text)]


def _phase(claim: PersistentVolumeClaim, phase: str) -> list[Action]:
    return status_patch(kinds.PERSISTENT_VOLUME_CLAIM, claim, {**claim.status, "phase": phase})


def bind(claim: PersistentVolumeClaim, volume: PersistentVolume) -> list[Action]:
    """The writes that are still missing."""
    actions: list[Action] = []
    meta = volume.metadata
    reference = volume.spec.claimRef
    if reference is None or reference.uid != claim.metadata.uid:
        patch: dict[str, Any] = {"spec": {"claimRef": claim_reference(claim)}}
        if reference is None:
            patch["metadata"] = {"annotations": {BOUND_BY_CONTROLLER: "yes"}}
        actions.append(Patch(kinds.PERSISTENT_VOLUME, "", meta.name, patch, uid=meta.uid, revision=meta.revision))
    if volume.status.get("phase") != "Bound":
        patch = {"status": {"phase": "Bound"}}
        actions.append(Patch(kinds.PERSISTENT_VOLUME, "", meta.name, patch, "status", uid=meta.uid))
    own = claim.metadata
    marks = {} if own.annotations.get(BIND_COMPLETED) else {BIND_COMPLETED: "yes"}
    if not claim.spec.volumeName:
        marks[BOUND_BY_CONTROLLER] = "yes"
    if marks:
        patch = {"metadata": {"annotations": marks}, "spec": {"volumeName": meta.name}}
        actions.append(
            Patch(kinds.PERSISTENT_VOLUME_CLAIM, own.namespace, own.name, patch, uid=own.uid, revision=own.revision)
        )
    status = {
        **claim.status,
        "phase": "Bound",
        "accessModes": list(volume.spec.accessModes),
        "capacity": volume.spec.capacity,
    }
    return actions + status_patch(kinds.PERSISTENT_VOLUME_CLAIM, claim, status)
