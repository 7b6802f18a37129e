"""The spec of a PersistentVolumeClaim, wherever it stands: in claims, in pods' ephemeral volumes, in StatefulSets."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from machinery.api.quantity import parse_quantity
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import selectors

Obj = dict[str, Any]


def access_modes(spec: Obj, path: str) -> list[Cause]:
    """How a volume may be mounted: at least one way; ReadWriteOncePod alone."""
    modes = spec.get("accessModes") or []
    if not modes:
        return [causes.required(f"{path}.accessModes", "at least 1 access mode is required")]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        detail = "may not use ReadWriteOncePod with other access modes"
        return [causes.forbidden(f"{path}.accessModes", detail)]
    return []


def spec_of_claim(spec: Obj, path: str) -> list[Cause]:
    """The spec of a claim or of a claim's template."""
    found = access_modes(spec, path)
    found += selectors.label_selector(spec.get("selector"), f"{path}.selector")
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    at = causes.at_key(f"{path}.resources", "storage")
    if wanted is None:
        found.append(causes.required(at))
    elif parse_quantity(wanted).nano <= 0:
        found.append(causes.invalid(at, wanted, "must be greater than zero"))
    name = spec.get("storageClassName")
    if name:
        found += [causes.invalid(f"{path}.storageClassName", name, why) for why in names.dns_subdomain(name)]
    source = spec.get("dataSource")
    if source is not None and not source.get("apiGroup") and source.get("kind") != "PersistentVolumeClaim":
        found.append(
            causes.invalid(
                f"{path}.dataSource",
                source.get("kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            )
        )
    return found
