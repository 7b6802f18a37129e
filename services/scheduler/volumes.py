"""Claims, volumes and storage classes as the scheduler follows them, and what binding one to a node takes.

A claim is *bound* (its volume decides where it can be used), *immediate* (its controller binds it before any pod uses
it: wait), or *delayed* (WaitForFirstConsumer: the pod's node decides which volume it gets, an existing one or one
that is provisioned there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from machinery.api import kinds
from machinery.api.quantity import parse_quantity
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer
from services.scheduler.objects import LabelSelector, Metadata, NodeSelector, Resources, _Slim

NO_PROVISIONER = "kubernetes.io/no-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"


class ClaimSpec(_Slim):
    volumeName: str | None = None
    storageClassName: str | None = None
    accessModes: list[str] | None = None
    resources: Resources | None = None
    selector: LabelSelector | None = None
    volumeMode: str | None = None


class ClaimStatus(_Slim):
    phase: str | None = None


class Claim(_Slim):
    """core/v1 PersistentVolumeClaim."""

    metadata: Metadata
    spec: ClaimSpec = msgspec.field(default_factory=ClaimSpec)
    status: ClaimStatus = msgspec.field(default_factory=ClaimStatus)

    @property
    def bound(self) -> bool:
        return bool(self.spec.volumeName) and self.status.phase == "Bound"


class ObjectRef(_Slim):
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None


class VolumeNodeAffinity(_Slim):
    required: NodeSelector | None = None


class CsiSource(_Slim):
    driver: str = ""
    volumeHandle: str = ""


class VolumeSpec(_Slim):
    capacity: dict[str, str] | None = None
    accessModes: list[str] | None = None
    claimRef: ObjectRef | None = None
    storageClassName: str | None = None
    nodeAffinity: VolumeNodeAffinity | None = None
    volumeMode: str | None = None
    csi: CsiSource | None = None


class VolumeStatus(_Slim):
    phase: str | None = None


class PersistentVolume(_Slim):
    """core/v1 PersistentVolume."""

    metadata: Metadata
    spec: VolumeSpec = msgspec.field(default_factory=VolumeSpec)
    status: VolumeStatus = msgspec.field(default_factory=VolumeStatus)

    @property
    def size(self) -> int:
        text = (self.spec.capacity or {}).get("storage")
        return parse_quantity(text).value if text else 0


class TopologyRequirement(_Slim):
    key: str
    values: list[str] = []


class TopologyTerm(_Slim):
    matchLabelExpressions: list[TopologyRequirement] | None = None


class StorageClass(_Slim):
    """storage.k8s.io/v1 StorageClass."""

    metadata: Metadata
    provisioner: str = ""
    volumeBindingMode: str | None = None
    allowedTopologies: list[TopologyTerm] | None = None

    @property
    def delayed(self) -> bool:
        return self.volumeBindingMode == "WaitForFirstConsumer"


class CsiDriverOnNode(_Slim):
    name: str = ""
    allocatable: dict[str, int] | None = None


class CsiNodeSpec(_Slim):
    drivers: list[CsiDriverOnNode] = []


class CsiNode(_Slim):
    """storage.k8s.io/v1 CSINode."""

    metadata: Metadata
    spec: CsiNodeSpec = msgspec.field(default_factory=CsiNodeSpec)


class Volumes:
    """Follows claims, volumes, storage classes and CSI nodes."""

    def __init__(self, client: ApiClient) -> None:
        def follow(kind: kinds.Kind, model: type[Any]) -> Informer[Any]:
            return Informer(client, kind, decode=msgspec.json.Decoder(model).decode)

        self.claims: Informer[Claim] = follow(kinds.PERSISTENT_VOLUME_CLAIM, Claim)
        self.volumes: Informer[PersistentVolume] = follow(kinds.PERSISTENT_VOLUME, PersistentVolume)
        self.classes: Informer[StorageClass] = follow(kinds.STORAGE_CLASS, StorageClass)
        self.csi_nodes: Informer[CsiNode] = follow(kinds.CSI_NODE, CsiNode)

    @property
    def informers(self) -> list[Informer[Any]]:
        """What has to run."""
        return [self.claims, self.volumes, self.classes, self.csi_nodes]

    def claim(self, namespace: str, name: str) -> Claim | None:
        """A claim, or None."""
        return self.claims.lister.get(namespace, name)

    def volume(self, name: str) -> PersistentVolume | None:
        """A volume, or None."""
        return self.volumes.lister.get("", name)

    def storage_class(self, claim: Claim) -> StorageClass | None:
        """The claim's class, or None if it has none or it is absent."""
        name = claim.spec.storageClassName
        return self.classes.lister.get("", name) if name else None

    def available(self) -> Iterable[PersistentVolume]:
        """Volumes that no claim has taken."""
        return [volume for volume in self.volumes.lister if volume.status.phase in ("Available", None, "")]


def suits(volume: PersistentVolume, claim: Claim, selects: Callable[[dict[str, str]], bool]) -> bool:
    """Whether the volume could be bound to the claim, as far as size, class, mode and labels go."""
    wanted = ((claim.spec.resources and claim.spec.resources.requests) or {}).get("storage")
    reference = volume.spec.claimRef
    if reference is not None:
        # Reserved for one claim: for this one or for another.
        return (reference.namespace, reference.name) == (claim.metadata.namespace, claim.metadata.name)
    return (
        (volume.spec.storageClassName or "") == (claim.spec.storageClassName or "")
        and set(claim.spec.accessModes or ()) <= set(volume.spec.accessModes or ())
        and (volume.spec.volumeMode or "Filesystem") == (claim.spec.volumeMode or "Filesystem")
        and volume.size >= (parse_quantity(wanted).value if wanted else 0)
        and selects(volume.metadata.labels or {})
    )
