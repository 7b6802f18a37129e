"""Volumes, claims, storage classes, CSI objects, device claims."""

from __future__ import annotations

from typing import Any

from services.apiserver.rest.columns.formats import UNSET, access_modes, age, created
from services.apiserver.rest.columns.layout import Cells, Columns, Object

_DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def _given(value: Any) -> Any:
    """What stands there, be it empty."""
    return UNSET if value is None else value


def _volume(obj: Object) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    claim = spec.get("claimRef") or {}
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        obj["metadata"]["name"],
        (spec.get("capacity") or {}).get("storage", ""),
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        _given(spec.get("volumeAttributesClassName")),
        status.get("reason", ""),
        created(obj),
        _given(spec.get("volumeMode")),
    ]


def _claim(obj: Object) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        obj["metadata"]["name"],
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        access_modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        _given(spec.get("volumeAttributesClassName")),
        created(obj),
        _given(spec.get("volumeMode")),
    ]


def _storage_class(obj: Object) -> Cells:
    annotations = obj["metadata"].get("annotations") or {}
    name = obj["metadata"]["name"]
    if any(annotations.get(key) == "true" for key in _DEFAULT_CLASS):
        name += " (default)"
    return [
        name,
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        created(obj),
    ]


def _attributes_class(obj: Object) -> Cells:
    return [obj["metadata"]["name"], obj.get("driverName", ""), created(obj)]


def _attachment(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    return [
        obj["metadata"]["name"],
        spec.get("attacher", ""),
        (spec.get("source") or {}).get("persistentVolumeName") or "",
        spec.get("nodeName", ""),
        bool((obj.get("status") or {}).get("attached")),
        created(obj),
    ]


def _csi_node(obj: Object) -> Cells:
    return [obj["metadata"]["name"], len((obj.get("spec") or {}).get("drivers") or ()), created(obj)]


def _csi_driver(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    requests = spec.get("tokenRequests")
    audiences = UNSET if requests is None else ",".join(item.get("audience", "") for item in requests)
    return [
        obj["metadata"]["name"],
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        audiences,
        spec.get("requiresRepublish", False),
        ",".join(spec.get("volumeLifecycleModes") or ("Persistent",)),
        created(obj),
    ]


def _storage_capacity(obj: Object) -> Cells:
    return [obj["metadata"]["name"], obj.get("storageClassName", ""), _given(obj.get("capacity"))]


def _resource_claim(obj: Object) -> Cells:
    status = obj.get("status") or {}
    states = []
    if obj["metadata"].get("deletionTimestamp"):
        states.append("deleted")
    if status.get("allocation") is not None:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    elif not states:
        states.append("pending")
    return [obj["metadata"]["name"], ",".join(states), created(obj)]


def _resource_slice(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    pool = (spec.get("pool") or {}).get("name", "")
    return [obj["metadata"]["name"], spec.get("nodeName", ""), spec.get("driver", ""), pool, created(obj)]


def _taint_rule(obj: Object) -> Cells:
    taint = (obj.get("spec") or {}).get("taint") or {}
    added = taint.get("timeAdded")
    return [
        obj["metadata"]["name"],
        taint.get("key", ""),
        taint.get("value", ""),
        taint.get("effect", ""),
        age(added) if added else "",
        created(obj),
    ]


TABLES = {
    "persistentvolumes": Columns(
        "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age,"
        " VolumeMode*",
        _volume,
    ),
    "persistentvolumeclaims": Columns(
        "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode*", _claim
    ),
    "storageclasses.storage.k8s.io": Columns(
        "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age", _storage_class
    ),
    "volumeattributesclasses.storage.k8s.io": Columns("Name, DriverName, Age", _attributes_class),
    "volumeattachments.storage.k8s.io": Columns("Name, Attacher:name, PV, Node, Attached:boolean, Age", _attachment),
    "csistoragecapacities.storage.k8s.io": Columns("Name, StorageClassName, Capacity", _storage_capacity),
    "csinodes.storage.k8s.io": Columns("Name, Drivers:integer, Age", _csi_node),
    "csidrivers.storage.k8s.io": Columns(
        "Name, AttachRequired:boolean, PodInfoOnMount:boolean, StorageCapacity:boolean, TokenRequests,"
        " RequiresRepublish:boolean, Modes, Age",
        _csi_driver,
    ),
    "resourceclaims.resource.k8s.io": Columns("Name, State, Age", _resource_claim),
    "devicetaintrules.resource.k8s.io": Columns("Name, Key, Value, Effect, TimeAdded, Age", _taint_rule),
    "resourceslices.resource.k8s.io": Columns("Name, Node, Driver, Pool, Age", _resource_slice),
}
