"""Object metadata: names by kind, generated names, owners, finalizers, annotations' size, and what may not change."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.definitions import KindLike

Obj = dict[str, Any]

ANNOTATIONS_BYTES_MAX = 256 * 1024
_PATH_NAMES = frozenset({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "CertificateSigningRequest"})
_STANDARD_FINALIZERS = frozenset({"kubernetes", "foregroundDeletion", "orphan"})


def name_check(kind: KindLike) -> names.Check:
    """The syntax of a kind's names."""
    if kind.kind in _PATH_NAMES and kind.group in ("rbac.authorization.k8s.io", "certificates.k8s.io"):
        return names.path_segment
    if kind.group == "apiregistration.k8s.io":
        return names.path_segment
    if kind.group == "networking.k8s.io" and kind.kind == "IPAddress":
        return names.ip_address
    if not kind.group and kind.kind in ("Namespace", "Service"):
        return names.dns_label
    return names.dns_subdomain


def create(kind: KindLike, metadata: Obj, *, namespaced: bool | None = None, custom: bool = False) -> list[Cause]:
    """Metadata of a new object; its labels' and annotations' syntax is among `constraints`."""
    found: list[Cause] = []
    check = name_check(kind)
    generate = metadata.get("generateName")
    if generate:
        # The server adds five characters; a trailing dash is fine because something follows it.
        found += [causes.invalid("metadata.generateName", generate, why) for why in check(generate.rstrip("-") or "x")]
    name = metadata.get("name")
    if name:
        found += [causes.invalid("metadata.name", name, why) for why in check(name)]
    else:
        found.append(causes.required("metadata.name", "name or generateName is required"))
    if namespaced is not None:
        found += _namespace(metadata, namespaced)
    return found + _common(metadata, custom=custom)


def _namespace(metadata: Obj, namespaced: bool) -> list[Cause]:
    namespace = metadata.get("namespace")
    if not namespaced:
        return [causes.forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [causes.required("metadata.namespace")]
    return [causes.invalid("metadata.namespace", namespace, why) for why in names.dns_label(namespace)]


def _common(metadata: Obj, *, custom: bool) -> list[Cause]:
    """What holds for all metadata. Custom resources may have finalizers of any name."""
    found: list[Cause] = []
    annotations = metadata.get("annotations")
    for field in ("labels", "annotations"):
        for key in metadata.get(field) or ():
            if len(key) > 253:
                found += [causes.invalid(f"metadata.{field}", key, why) for why in names.qualified_name(key.lower())]
    if annotations:
        size = sum(len(key) + len(value) for key, value in annotations.items())
        if size > ANNOTATIONS_BYTES_MAX // 4:  # only then can the bytes of UTF-8 matter
            size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
            if size > ANNOTATIONS_BYTES_MAX:
                found.append(causes.too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX))
    if metadata.get("ownerReferences"):
        found += _owners(metadata["ownerReferences"])
    for finalizer in metadata.get("finalizers") or ():
        found += [causes.invalid("metadata.finalizers", finalizer, why) for why in names.qualified_name(finalizer)]
        if not custom and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(causes.invalid("metadata.finalizers", finalizer, detail))
    return found


def _owners(owners: list[Obj]) -> list[Cause]:
    found: list[Cause] = []
    controller = ""
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                found.append(causes.invalid(f"{path}.{field}", "", f"{field} must not be empty"))
        if not owner.get("apiVersion"):
            found.append(causes.invalid(f"{path}.apiVersion", "", "version must not be empty"))
        if owner.get("kind") == "Event" and owner.get("apiVersion") in ("v1", "events.k8s.io/v1"):
            found.append(
                causes.invalid(path, owner, f"{owner['apiVersion']}, Kind=Event is disallowed from being an owner")
            )
        if owner.get("controller"):
            this = f"{owner.get('name')}"
            if controller:
                detail = (
                    f'Only one reference can have Controller set to true. Found "true" in references for {controller} '
                    f"and {this}"
                )
                found.append(causes.invalid("metadata.ownerReferences", owners, detail))
            controller = this
    return found


def update(kind: KindLike, new: Obj, old: Obj, *, custom: bool = False) -> list[Cause]:
    """Metadata of a changed object against what it was."""
    found = _common(new, custom=custom)
    for field in ("name", "namespace", "uid", "creationTimestamp"):
        if new.get(field) != old.get(field):
            found.append(causes.immutable(f"metadata.{field}", new.get(field, "")))
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        if old.get(field) is not None and new.get(field) is not None and new[field] != old[field]:
            found.append(causes.immutable(f"metadata.{field}", new[field]))
    if (new.get("generation") or 0) < (old.get("generation") or 0):
        found.append(causes.invalid("metadata.generation", new.get("generation", 0), "must not be decremented"))
    if old.get("deletionTimestamp"):
        added = sorted(set(new.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            detail = (
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{listed}}}"
            )
            found.append(causes.forbidden("metadata.finalizers", detail))
    return found
