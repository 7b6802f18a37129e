"""Finalizers that keep claims and volumes while they are used; and claims that live as long as one pod."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager.actions import WARNING, Action, Create, Emit, Note, Patch
from services.controller_manager.pods import is_terminal
from services.controller_manager.templates import owner_reference
from services.controller_manager.views.cluster import PersistentVolume, PersistentVolumeClaim
from services.controller_manager.views.meta import Meta
from services.controller_manager.views.pod import Pod

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
CLASS_FINALIZER = "kubernetes.io/vac-protection"


def of_claim(claim: PersistentVolumeClaim, pods: Iterable[Pod]) -> list[Action]:
    """Protect a claim; let a deleted one go once no pod that may run uses it."""
    in_use = any(pod.spec.nodeName and not is_terminal(pod) for pod in pods)
    return _protect(kinds.PERSISTENT_VOLUME_CLAIM, claim.metadata, CLAIM_FINALIZER, in_use=in_use)


def of_volume(volume: PersistentVolume) -> list[Action]:
    """Protect a volume; let a deleted one go once it is not bound."""
    bound = volume.status.get("phase") == "Bound"
    return _protect(kinds.PERSISTENT_VOLUME, volume.metadata, VOLUME_FINALIZER, in_use=bound)


def of_class(meta: Meta, claims: Iterable[PersistentVolumeClaim], volumes: Iterable[PersistentVolume]) -> list[Action]:
    """Protect a VolumeAttributesClass; let a deleted one go once nothing has it, wants it or is being changed to it."""
    in_use = any(meta.name in classes_of(claim) for claim in claims) or any(
        volume.spec.volumeAttributesClassName == meta.name for volume in volumes
    )
    return _protect(kinds.VOLUME_ATTRIBUTES_CLASS, meta, CLASS_FINALIZER, in_use=in_use)


def classes_of(claim: PersistentVolumeClaim) -> set[str]:
    """The VolumeAttributesClasses that a claim names."""
    modifying = (claim.status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName") or ""
    current = claim.status.get("currentVolumeAttributesClassName") or ""
    return {claim.spec.volumeAttributesClassName, current, modifying} - {""}


def _protect(kind: Kind, meta: Meta, finalizer: str, *, in_use: bool) -> list[Action]:
    has = finalizer in meta.finalizers
    if meta.deletionTimestamp is None:
        if has:
            return []
        wanted: list[str] | None = [*meta.finalizers, finalizer]
    else:
        if not has or in_use:
            return []
        wanted = [name for name in meta.finalizers if name != finalizer] or None
    patch = {"metadata": {"finalizers": wanted}}
    return [Patch(kind, meta.namespace, meta.name, patch, uid=meta.uid, revision=meta.revision)]


def ephemeral_claims(pod: Pod, find: Callable[[str], PersistentVolumeClaim | None]) -> list[Action]:
    """Create the claims of a pod's ephemeral volumes.

    A namesake that is not the pod's own is a mistake that somebody must mend.
    """
    actions: list[Action] = []
    for volume in pod.spec.volumes:
        if volume.ephemeral is None:
            continue
        name = f"{pod.metadata.name}-{volume.name}"
        existing = find(name)
        if existing is not None:
            owner = existing.metadata.controller
            if owner is None or owner.uid != pod.metadata.uid:
                where = f"{pod.metadata.namespace}/{name}"
                text = f'PVC "{where}" was not created for pod {pod.metadata.name} (pod is not owner)'
                actions.append(Emit(WARNING, "EphemeralVolumeClaimConflict", text))
            continue
        failure = Note(WARNING, "FailedCreate", f"create PVC {name} failed: {{error}}")
        obj = _claim(pod, name, volume.ephemeral.get("volumeClaimTemplate") or {})
        actions.append(Create(kinds.PERSISTENT_VOLUME_CLAIM, obj, on_failure=failure, exists_ok=True))
    return actions


def _claim(pod: Pod, name: str, template: dict[str, Any]) -> dict[str, Any]:
    given = template.get("metadata") or {}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": pod.metadata.namespace,
        "ownerReferences": [owner_reference(kinds.POD, pod.metadata)],
    }
    for part in ("labels", "annotations"):
        if given.get(part):
            metadata[part] = given[part]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": template.get("spec") or {},
    }
