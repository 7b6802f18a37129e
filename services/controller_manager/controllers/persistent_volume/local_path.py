"""The provisioner cutaway.dev/local-path: a volume is a directory on the node where its first pod runs."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import NORMAL, WARNING, Action, Create, Delete, Emit, Note, Plan
from services.controller_manager.controllers.persistent_volume.binding import (
    PROVISIONED_BY,
    SELECTED_NODE,
    claim_reference,
)
from services.controller_manager.views.cluster import PersistentVolume, PersistentVolumeClaim, StorageClass
from services.controller_manager.views.pod import Node, Pod

NAME = "cutaway.dev/local-path"
_HOSTNAME = "kubernetes.io/hostname"
_REMOVER_NAMESPACE = "kube-system"


def provision(claim: PersistentVolumeClaim, storage_class: StorageClass, node: Node | None, base: str) -> Plan:
    """The volume for a claim whose pod has been given a node. `base` is the directory that holds all volumes."""
    if SELECTED_NODE not in claim.metadata.annotations:
        name = storage_class.metadata.name
        text = f"{NAME} needs a node: set volumeBindingMode WaitForFirstConsumer in StorageClass {name}"
        return Plan([Emit(WARNING, "ProvisioningFailed", text)])
    if node is None:
        text = f"node {claim.metadata.annotations[SELECTED_NODE]} does not exist"
        return Plan([Emit(WARNING, "ProvisioningFailed", text)], requeue_after=15)
    if claim.spec.volumeMode != "Filesystem":
        return Plan([Emit(WARNING, "ProvisioningFailed", f"{NAME} makes file systems, not block devices")])
    if storage_class.reclaimPolicy not in ("Delete", "Retain"):
        return Plan([Emit(WARNING, "ProvisioningFailed", f"{NAME} can't {storage_class.reclaimPolicy}")])
    name = volume_name(claim)
    success = Note(NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
    failure = Note(WARNING, "ProvisioningFailed", "failed to provision volume: {error}")
    obj = new_volume(claim, storage_class, node, storage_class.parameters.get("path") or base)
    return Plan([Create(kinds.PERSISTENT_VOLUME, obj, success, failure, exists_ok=True)])


def volume_name(claim: PersistentVolumeClaim) -> str:
    """One name for each claim, so that provisioning twice makes one volume."""
    return f"pvc-{claim.metadata.uid}"


def new_volume(claim: PersistentVolumeClaim, storage_class: StorageClass, node: Node, base: str) -> dict[str, Any]:
    """The volume: pinned to the node, and reserved for the claim."""
    name = volume_name(claim)
    directory = f"{base.rstrip('/')}/{name}_{claim.metadata.namespace}_{claim.metadata.name}"
    hostname = node.metadata.labels.get(_HOSTNAME, node.metadata.name)
    term = {"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": [hostname]}]}
    spec: dict[str, Any] = {
        "capacity": {"storage": claim.spec.resources.requests.get("storage", "0")},
        "accessModes": list(claim.spec.accessModes),
        "volumeMode": "Filesystem",
        "persistentVolumeReclaimPolicy": storage_class.reclaimPolicy,
        "storageClassName": storage_class.metadata.name,
        "claimRef": claim_reference(claim),
        "hostPath": {"path": directory, "type": "DirectoryOrCreate"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }
    if storage_class.mountOptions:
        spec["mountOptions"] = list(storage_class.mountOptions)
    metadata = {"name": name, "annotations": {PROVISIONED_BY: NAME}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


# --- the end of a volume ----------------------------------------------------------------------------------------------


def reclaim(volume: PersistentVolume, remover: Pod | None, image: str) -> Plan:
    """Remove a released volume: by a pod on its node that deletes the directory, then the object.

    Without an image for that pod the directory stays, and the event says so.
    """
    if volume.status.get("phase") != "Released" or volume.spec.persistentVolumeReclaimPolicy != "Delete":
        return Plan()
    meta = volume.metadata
    gone: list[Action] = [Delete(kinds.PERSISTENT_VOLUME, "", meta.name, uid=meta.uid)]
    path = str((volume.spec.hostPath or {}).get("path", ""))
    if not image or not path:
        text = f"The volume was removed; its directory {path} stays on its node"
        return Plan([Emit(NORMAL, "VolumeDirectoryKept", text), *gone])
    if remover is None:
        return Plan([Create(kinds.POD, _remover(volume, path, image), exists_ok=True)])
    done: list[Action] = [
        Delete(kinds.POD, remover.metadata.namespace, remover.metadata.name, uid=remover.metadata.uid)
    ]
    if remover.status.phase == "Succeeded":
        return Plan([*gone, *done])
    if remover.status.phase == "Failed":
        return Plan([Emit(WARNING, "VolumeFailedDelete", f"could not remove {path}"), *done], requeue_after=60)
    return Plan()


def remover_key(volume_name: str) -> tuple[str, str]:
    """(namespace, name) of the pod that removes a volume's directory."""
    return _REMOVER_NAMESPACE, f"remove-{volume_name}"


def _remover(volume: PersistentVolume, path: str, image: str) -> dict[str, Any]:
    parent, _, directory = path.rpartition("/")
    namespace, name = remover_key(volume.metadata.name)
    required = (volume.spec.nodeAffinity or {}).get("required") or {}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    labels = {"cutaway.dev/removes-volume": volume.metadata.name}
    container = {
        "name": "remove",
        "image": image,
        # The directory's name is the provisioner's own and stands alone: nothing in it is an option or a path.
        "command": ["rm", "-rf", "--", f"/volumes/{directory}"],
        "volumeMounts": [{"name": "volumes", "mountPath": "/volumes"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
        },
        "spec": {
            "restartPolicy": "Never",
            "affinity": affinity,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "volumes", "hostPath": {"path": parent, "type": "Directory"}}],
        },
    }


# --- growth -----------------------------------------------------------------------------------------------------------


def is_ours(volume: PersistentVolume | None) -> bool:
    """Whether this provisioner made the volume."""
    return volume is not None and volume.metadata.annotations.get(PROVISIONED_BY) == NAME
