"""CustomResourceDefinitions as objects. What they make the server do is in `services.apiserver.crd`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.registry.metadata import now_text
from services.apiserver.registry.strategy import Strategy
from services.apiserver.schema import structural
from services.apiserver.write_context import WriteContext

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


class DefinitionStrategy(Strategy):
    """A definition is held until its objects are gone, and remembers every version that was ever stored."""

    generation = True
    unconditional_update = False

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        versions = ctx.spec().get("versions") or ()
        ctx.obj["status"] = {
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [version.get("name", "") for version in versions if version.get("storage")],
        }

    def prepare_update(self, ctx: WriteContext) -> None:
        super().prepare_update(ctx)
        if ctx.subresource == "status":
            return
        # Objects of the new storage version will exist from now on.
        status: dict[str, Any] = dict(ctx.obj.get("status") or {})
        stored = list(status.get("storedVersions") or ())
        for version in ctx.spec().get("versions") or ():
            if version.get("storage") and version.get("name") not in stored:
                stored.append(version["name"])
        status["storedVersions"] = stored
        ctx.obj["status"] = status

    def validate_create(self, ctx: WriteContext) -> Sequence[Cause]:
        return list(problems(ctx.obj))

    def validate_update(self, ctx: WriteContext) -> Sequence[Cause]:
        assert ctx.old is not None
        found = list(problems(ctx.obj))
        spec, old = ctx.spec(), ctx.old["spec"]
        for field in ("group", "scope"):
            if spec.get(field) != old.get(field):
                found.append(_immutable(f"spec.{field}", spec.get(field)))
        if (spec.get("names") or {}).get("plural") != old["names"]["plural"]:
            found.append(_immutable("spec.names.plural", spec["names"].get("plural")))
        stored = (ctx.obj.get("status") or {}).get("storedVersions") or []
        known = {version.get("name") for version in spec.get("versions") or ()}
        for index, version in enumerate(stored):
            if version not in known:
                message = f'Invalid value: "{version}": missing from spec.versions; {version} was previously a storage version, and must '
                message += "remain in spec.versions until a storage migration ensures no data remains persisted in that version"
                found.append(Cause("FieldValueInvalid", message, f"status.storedVersions[{index}]"))
        return found

    def prepare_delete(self, obj: dict[str, Any]) -> None:
        if "deletionTimestamp" not in obj["metadata"]:
            finalizers = obj["metadata"].setdefault("finalizers", [])
            if CLEANUP_FINALIZER not in finalizers:
                finalizers.append(CLEANUP_FINALIZER)

    def begin_deletion(self, obj: dict[str, Any]) -> None:
        obj["metadata"].pop("deletionGracePeriodSeconds", None)
        message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        set_condition(obj.setdefault("status", {}), "Terminating", "True", "InstanceDeletionPending", message)


def set_condition(status: dict[str, Any], kind: str, value: str, reason: str, message: str) -> None:
    """Set a condition; its time moves only when its value does."""
    conditions: list[dict[str, Any]] = status.setdefault("conditions", [])
    new = {"type": kind, "status": value, "lastTransitionTime": now_text(), "reason": reason, "message": message}
    for index, present in enumerate(conditions):
        if present.get("type") == kind:
            if present.get("status") == value:
                new["lastTransitionTime"] = present.get("lastTransitionTime", new["lastTransitionTime"])
            conditions[index] = new
            return
    conditions.append(new)


def problems(definition: dict[str, Any]) -> Iterator[Cause]:
    """What is wrong with a definition beyond its own schema."""
    spec = definition.get("spec") or {}
    names = spec.get("names") or {}
    expected = f"{names.get('plural', '')}.{spec.get('group', '')}"
    name = definition["metadata"].get("name", "")
    if name != expected:
        message = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        yield Cause("FieldValueInvalid", message, "metadata.name")
    protected = spec.get("group", "").endswith((".k8s.io", ".kubernetes.io"))
    if protected and "api-approved.kubernetes.io" not in (definition["metadata"].get("annotations") or {}):
        message = (
            'Required value: protected groups must have approval annotation "api-approved.kubernetes.io", '
            "see https://github.com/kubernetes/enhancements/pull/1111"
        )
        yield Cause("FieldValueRequired", message, "metadata.annotations[api-approved.kubernetes.io]")
    versions = spec.get("versions") or []
    if sum(1 for version in versions if version.get("storage")) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        yield Cause("FieldValueInvalid", message, "spec.versions")
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if version.get("name") in seen:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{version.get("name")}"', f"{path}.name")
        seen.add(version.get("name", ""))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield Cause("FieldValueRequired", "Required value: schemas are required", f"{path}.schema.openAPIV3Schema")
        else:
            yield from structural.problems(schema, f"{path}.schema.openAPIV3Schema")
        yield from _subresource_problems(version, path)


def _subresource_problems(version: dict[str, Any], path: str) -> Iterator[Cause]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return
    for field, prefix in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(field) or ""
        if not value:
            yield Cause("FieldValueRequired", "Required value", f"{path}.subresources.scale.{field}")
        elif not value.startswith(prefix):
            message = f'Invalid value: "{value}": should be a json path under {prefix[:-1]}'
            yield Cause("FieldValueInvalid", message, f"{path}.subresources.scale.{field}")


def _immutable(field: str, value: Any) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{value}": field is immutable', field)
