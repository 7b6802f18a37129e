"""Which volume fits a claim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from machinery.api.quantity import parse_quantity
from services.controller_manager.views.cluster import ObjectReference, PersistentVolume, PersistentVolumeClaim

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
# A volume that was released or failed waits for a person or its provisioner.
_FREE = (None, "", "Pending", "Available")
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(claim: PersistentVolumeClaim) -> str:
    """The name of the claim's storage class; empty: none, so only volumes without one."""
    return claim.metadata.annotations.get(_OLD_CLASS, claim.spec.storageClassName or "")


def is_for(reference: ObjectReference | None, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume's claimRef means this claim (a reserved volume names it without a uid)."""
    if reference is None:
        return False
    meta = claim.metadata
    same = reference.namespace == meta.namespace and reference.name == meta.name
    return same and reference.uid in ("", meta.uid)


def fits(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether the volume can serve the claim, apart from who has it now."""
    spec = volume.spec
    if volume.metadata.deletionTimestamp is not None or spec.volumeMode != claim.spec.volumeMode:
        return False
    requested = parse_quantity(claim.spec.resources.requests.get("storage", "0"))
    if parse_quantity(spec.capacity.get("storage", "0")) < requested:
        return False
    return set(claim.spec.accessModes) <= set(spec.accessModes)


def best(claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume]) -> PersistentVolume | None:
    """The volume to bind: one reserved for the claim, else the smallest that fits."""
    candidates: list[PersistentVolume] = []
    for volume in volumes:
        if not fits(volume, claim):
            continue
        if volume.spec.claimRef is not None:
            if is_for(volume.spec.claimRef, claim):
                return volume
            continue
        if volume.spec.storageClassName != class_of(claim) or volume.status.get("phase") not in _FREE:
            continue
        if claim.spec.selector is not None and not claim.spec.selector.matches(volume.metadata.labels):
            continue
        candidates.append(volume)
    return min(
        candidates,
        key=lambda each: (parse_quantity(each.spec.capacity.get("storage", "0")), each.metadata.name),
        default=None,
    )


def claim_reference(claim: PersistentVolumeClaim) -> dict[str, Any]:
    """The claimRef that binds a volume to this claim."""
    meta = claim.metadata
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resourceVersion,
    }
