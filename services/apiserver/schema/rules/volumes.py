"""Volumes of pods and sources of persistent volumes."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import claims, containers

Obj = dict[str, Any]

_DOWNWARD_PATHS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"}
)


def volumes(declared: list[Obj], path: str) -> tuple[dict[str, Obj], list[Cause]]:
    """A pod's volumes by name, and what is wrong with them."""
    found: list[Cause] = []
    by_name: dict[str, Obj] = {}
    for index, volume in enumerate(declared):
        here = f"{path}[{index}]"
        name = volume.get("name") or ""
        if name and name in by_name:
            found.append(causes.duplicate(f"{here}.name", name))
        by_name[name] = volume
        sources = [field for field in volume if field != "name" and volume[field] is not None]
        if not sources:
            found.append(causes.required(here, "must specify a volume type"))
        for extra in sources[1:]:
            found.append(causes.forbidden(f"{here}.{extra}", "may not specify more than 1 volume type"))
        for field in sources[:1]:
            check = _CHECKS.get(field)
            if check is not None:
                found += check(volume[field], f"{here}.{field}")
    return by_name, found


def _empty_dir(source: Obj, path: str) -> list[Cause]:
    limit = source.get("sizeLimit")
    if limit is not None and str(limit).startswith("-"):
        return [causes.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def host_path(source: Obj, path: str) -> list[Cause]:
    """No way up out of the path."""
    where = source.get("path") or ""
    if ".." in where.split("/"):
        return [causes.invalid(f"{path}.path", where, "must not contain '..'")]
    return []


def _items(items: list[Obj] | None, path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, item in enumerate(items or ()):
        where = item.get("path") or ""
        if where:
            found += _file_path(where, f"{path}[{index}].path")
    return found


def _file_path(where: str, path: str) -> list[Cause]:
    found = containers.local_path(where, path)
    if where.startswith("..") and ".." not in where.split("/"):
        found.append(causes.invalid(path, where, "must not start with '..'"))
    return found


def _secret(source: Obj, path: str) -> list[Cause]:
    found = [] if source.get("secretName") else [causes.required(f"{path}.secretName")]
    return found + _items(source.get("items"), f"{path}.items")


def _named(source: Obj, path: str) -> list[Cause]:
    found = [] if source.get("name") else [causes.required(f"{path}.name")]
    return found + _items(source.get("items"), f"{path}.items")


def _downward(source: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, item in enumerate(source.get("items") or ()):
        here = f"{path}.items[{index}]"
        if item.get("path"):
            found += _file_path(item["path"], f"{here}.path")
        if item.get("fieldRef") is not None:
            if item.get("resourceFieldRef") is not None:
                found.append(
                    causes.invalid(
                        here, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
                    )
                )
            found += containers.field_ref(item["fieldRef"], f"{here}.fieldRef", _DOWNWARD_PATHS)
        elif item.get("resourceFieldRef") is not None:
            found += containers.resource_field_ref(item["resourceFieldRef"], f"{here}.resourceFieldRef", in_volume=True)
        else:
            found.append(causes.required(here, "one of fieldRef and resourceFieldRef is required"))
    return found


def _projected(source: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, one in enumerate(source.get("sources") or ()):
        here = f"{path}.sources[{index}]"
        given = [name for name, value in one.items() if value is not None]
        if len(given) > 1:
            found += [
                causes.forbidden(f"{here}.{name}", "may not specify more than 1 volume type per source")
                for name in given[1:]
            ]
        elif not given:
            found.append(causes.required(here, "must specify a source"))
        for name in ("secret", "configMap"):
            if one.get(name) is not None:
                found += _named(one[name], f"{here}.{name}")
        if one.get("downwardAPI") is not None:
            found += _downward(one["downwardAPI"], f"{here}.downwardAPI")
        token = one.get("serviceAccountToken")
        if token is not None:
            seconds = token.get("expirationSeconds", 3600)
            if seconds < 600:
                found.append(
                    causes.invalid(
                        f"{here}.serviceAccountToken.expirationSeconds",
                        seconds,
                        "may not specify a duration less than 10 minutes",
                    )
                )
            elif seconds > 2**32:
                found.append(
                    causes.invalid(
                        f"{here}.serviceAccountToken.expirationSeconds",
                        seconds,
                        "may not specify a duration larger than 2^32 seconds",
                    )
                )
            if token.get("path"):
                found += _file_path(token["path"], f"{here}.serviceAccountToken.path")
    return found


def nfs(source: Obj, path: str) -> list[Cause]:
    """An NFS export is an absolute path."""
    where = source.get("path") or ""
    if where and not where.startswith("/"):
        return [causes.invalid(f"{path}.path", where, "must be an absolute path")]
    return []


def iscsi(source: Obj, path: str) -> list[Cause]:
    """An iSCSI target: its qualified name, its unit, its secrets."""
    found: list[Cause] = []
    name = source.get("iqn") or ""
    if name and not name.startswith(("iqn.", "eui.", "naa.")):
        found.append(causes.invalid(f"{path}.iqn", name, "must be valid format"))
    if not 0 <= source.get("lun", 0) <= 255:
        found.append(causes.invalid(f"{path}.lun", source["lun"], "must be between 0 and 255, inclusive"))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and not source.get("secretRef"):
        found.append(causes.required(f"{path}.secretRef"))
    return found


def fibre_channel(source: Obj, path: str) -> list[Cause]:
    """Either targets and a unit, or wwids."""
    found: list[Cause] = []
    targets, wwids = source.get("targetWWNs"), source.get("wwids")
    if not targets and not wwids:
        found.append(causes.required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if targets and wwids:
        found.append(
            causes.invalid(f"{path}.targetWWNs", targets, "targetWWNs and wwids can not be specified simultaneously")
        )
    if targets:
        lun = source.get("lun")
        if lun is None:
            found.append(causes.required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= 255:
            found.append(causes.invalid(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))
    return found


def _csi(source: Obj, path: str) -> list[Cause]:
    driver = source.get("driver") or ""
    return [causes.invalid(f"{path}.driver", driver, why) for why in names.dns_subdomain(driver)] if driver else []


def _ephemeral(source: Obj, path: str) -> list[Cause]:
    if source.get("volumeClaimTemplate") is None:
        return [causes.required(f"{path}.volumeClaimTemplate")]
    template = source["volumeClaimTemplate"]
    return claims.spec_of_claim(template.get("spec") or {}, f"{path}.volumeClaimTemplate.spec")


_CHECKS = {
    "emptyDir": _empty_dir,
    "hostPath": host_path,
    "secret": _secret,
    "configMap": _named,
    "downwardAPI": _downward,
    "projected": _projected,
    "nfs": nfs,
    "iscsi": iscsi,
    "fc": fibre_channel,
    "csi": _csi,
    "ephemeral": _ephemeral,
}
