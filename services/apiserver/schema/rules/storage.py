"""PersistentVolumes, claims, StorageClasses and their kin."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from machinery.api.quantity import parse_quantity
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import claims, selectors, volumes

Obj = dict[str, Any]

_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume",
    "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip


def claim(obj: Obj) -> list[Cause]:
    """A PersistentVolumeClaim."""
    return claims.spec_of_claim(obj.get("spec") or {}, "spec")


def update_claim(new: Obj, old: Obj) -> list[Cause]:
    """A claim: only its wanted size may grow once it is bound, and its volume be set once."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if spec == before:
        return []
    found: list[Cause] = []

    def bare(one: Obj) -> Obj:
        out = {name: value for name, value in one.items() if name not in ("resources", "volumeAttributesClassName")}
        if not before.get("volumeName"):
            out.pop("volumeName", None)
        if before.get("storageClassName") is None:
            # A default class may be filled in afterwards.
            out.pop("storageClassName", None)
        return out

    if bare(spec) != bare(before):
        detail = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        found.append(causes.forbidden("spec", detail))
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    had = ((before.get("resources") or {}).get("requests") or {}).get("storage")
    if wanted and had and wanted != had:
        if parse_quantity(wanted) < parse_quantity(had):
            status = ((old.get("status") or {}).get("capacity") or {}).get("storage")
            if status is None or parse_quantity(wanted) <= parse_quantity(status):
                detail = (
                    "field can not be less than status.capacity"
                    if status
                    else "field can not be less than previous value"
                )
                found.append(causes.forbidden("spec.resources.requests.storage", detail))
        elif (old.get("status") or {}).get("phase") != "Bound":
            detail = (
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
                "claims"
            )
            found.append(causes.forbidden("spec", detail))
    return found


def volume(obj: Obj) -> list[Cause]:
    """A PersistentVolume."""
    spec = obj.get("spec") or {}
    found = claims.access_modes(spec, "spec")
    capacity = spec.get("capacity") or {}
    if not capacity:
        found.append(causes.required("spec.capacity"))
    elif "storage" not in capacity or len(capacity) > 1:
        found.append(causes.not_supported("spec.capacity", capacity, ("storage",)))
    elif parse_quantity(capacity["storage"]).nano <= 0:
        found.append(causes.invalid("spec.capacity[storage]", capacity["storage"], "must be greater than zero"))
    given = [name for name in _SOURCES if spec.get(name) is not None]
    if not given:
        found.append(causes.required("spec", "must specify a volume type"))
    for extra in given[1:]:
        found.append(causes.forbidden(f"spec.{extra}", "may not specify more than 1 volume type"))
    for name, check in _CHECKS.items():
        if spec.get(name) is not None:
            found += check(spec[name], f"spec.{name}")
    hard = (spec.get("nodeAffinity") or {}).get("required")
    if spec.get("nodeAffinity") is not None:
        if hard is None:
            found.append(causes.required("spec.nodeAffinity.required", "must specify required node constraints"))
        else:
            found += selectors.node_selector(hard, "spec.nodeAffinity.required")
    elif spec.get("local") is not None:
        found.append(causes.required("spec.nodeAffinity", "Local volume requires node affinity"))
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle" and (spec.get("hostPath") or {}).get("path") == "/":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        found.append(causes.forbidden("spec.persistentVolumeReclaimPolicy", detail))
    wanted = spec.get("storageClassName")
    if wanted:
        found += [causes.invalid("spec.storageClassName", wanted, why) for why in names.dns_subdomain(wanted)]
    return found


def _local(source: Obj, path: str) -> list[Cause]:
    where = source.get("path") or ""
    if ".." in where.split("/"):
        return [causes.invalid(f"{path}.path", where, "must not contain '..'")]
    return []


_CHECKS = {
    "hostPath": volumes.host_path,
    "nfs": volumes.nfs,
    "iscsi": volumes.iscsi,
    "fc": volumes.fibre_channel,
    "local": _local,
}


def update_volume(new: Obj, old: Obj) -> list[Cause]:
    """A PersistentVolume: where its data is stays."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if any(spec.get(name) != before.get(name) for name in _SOURCES):
        return [
            causes.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        ]
    found: list[Cause] = []
    if spec.get("volumeMode") != before.get("volumeMode"):
        found.append(causes.immutable("spec.volumeMode", spec.get("volumeMode")))
    if before.get("nodeAffinity") is not None and spec.get("nodeAffinity") != before["nodeAffinity"]:
        found.append(causes.immutable("spec.nodeAffinity", spec.get("nodeAffinity")))
    return found


def storage_class(obj: Obj) -> list[Cause]:
    """A StorageClass."""
    found: list[Cause] = []
    provisioner = obj.get("provisioner") or ""
    if provisioner:
        found += [causes.invalid("provisioner", provisioner, why) for why in names.qualified_name(provisioner.lower())]
    parameters = obj.get("parameters") or {}
    if len(parameters) > 512:
        found.append(causes.too_long("parameters", 512))
    if any(not key for key in parameters):
        found.append(causes.invalid("parameters", "", "field can not be empty."))
    return found


def update_storage_class(new: Obj, old: Obj) -> list[Cause]:
    """A StorageClass: what it makes stays."""
    found: list[Cause] = []
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if (new.get(field) or None) != (old.get(field) or None):
            found.append(causes.forbidden(field, f"updates to {field} are forbidden."))
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        found.append(causes.immutable("volumeBindingMode", new.get("volumeBindingMode")))
    return found


def update_attachment(new: Obj, old: Obj) -> list[Cause]:
    """A VolumeAttachment: its spec stays."""
    if new.get("spec") != old.get("spec"):
        return [causes.immutable("spec", new.get("spec"))]
    return []
