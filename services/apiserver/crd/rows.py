"""A definition as rows of the registry, one for each served version."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from machinery.api.errors import Cause
from machinery.api.kinds import Kind
from services.apiserver.crd.conversion import WebhookConversion
from services.apiserver.registry.resource import GET_PATCH_UPDATE, READ_WRITE, Conversion, Resource, Subresource
from services.apiserver.registry.strategy import Strategy, keep
from services.apiserver.schema.custom import CustomSchema
from services.apiserver.schema.rules import metadata as metadata_rules
from services.apiserver.write_context import WriteContext

_SCALE_KIND = ("autoscaling", "v1", "Scale")
_TERMINATING_VERBS = tuple(verb for verb in READ_WRITE if verb != "create")


class CustomVersion:
    """What is known of one served version beyond its row: for discovery documents, tables, scale and apply."""

    def __init__(self, definition: dict[str, Any], version: dict[str, Any]) -> None:
        self.definition_name: str = definition["metadata"]["name"]
        self.schema: dict[str, Any] | None = (version.get("schema") or {}).get("openAPIV3Schema")
        self.printer_columns: list[dict[str, Any]] = version.get("additionalPrinterColumns") or []
        names = definition["spec"]["names"]
        self.list_kind: str = names.get("listKind") or f"{names['kind']}List"
        self.deprecation: str = ""
        if version.get("deprecated"):
            kind = f"{definition['spec']['group']}/{version['name']} {names['kind']}"
            self.deprecation = version.get("deprecationWarning") or f"{kind} is deprecated"
        scale = (version.get("subresources") or {}).get("scale") or {}
        self.scale_paths = tuple(
            str(scale.get(field, "")).removeprefix(".")
            for field in ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
        )
        self.judge = CustomSchema(self.schema, kind=names["kind"], version=version["name"])

    @property
    def node(self) -> Any:
        """The schema as server-side apply walks it."""
        return self.judge.node


class CustomResourceSchema:
    """A custom version's `Schema`: its structural schema and the rules of metadata."""

    def __init__(self, kind: Kind, custom: CustomVersion) -> None:
        self._kind = kind
        self._custom = custom

    def take_in(
        self,
        obj: dict[str, Any],
        field_validation: str,
        duplicates: tuple[str, ...] = (),
        touched: Collection[str] | None = None,
    ) -> list[str]:
        return self._custom.judge.take_in(obj, field_validation, duplicates)

    def default(self, obj: dict[str, Any]) -> None:
        self._custom.judge.default(obj)

    def validate_create(self, obj: dict[str, Any]) -> Sequence[Cause]:
        found = metadata_rules.create(self._kind, obj["metadata"], namespaced=self._kind.namespaced, custom=True)
        return found + self._custom.judge.validate_create(obj)

    def validate_update(self, new: dict[str, Any], old: dict[str, Any], subresource: str) -> Sequence[Cause]:
        found = metadata_rules.update(self._kind, new["metadata"], old["metadata"], custom=True)
        return found + self._custom.judge.validate_update(new, old)


class DefaultedOnRead:
    """Objects that were stored before the definition's present schema get its defaults when they are read, as upstream
    has it.

    It costs decoding each one, so only definitions that have defaults and have changed have it.
    """

    def __init__(self, custom: CustomVersion) -> None:
        self._custom = custom

    def to_stored(self, obj: dict[str, Any]) -> dict[str, Any]:
        return obj

    def to_served(self, obj: dict[str, Any]) -> dict[str, Any]:
        self._custom.judge.default(obj)
        return obj


class CustomStrategy(Strategy):
    """Custom objects: updates say which version they change; the status subresource changes nothing but the status."""

    generation = True
    unconditional_update = False

    def prepare_update(self, ctx: WriteContext) -> None:
        super().prepare_update(ctx)
        assert ctx.old is not None
        if ctx.subresource == "status":
            managed = ctx.metadata.get("managedFields")
            ctx.obj["metadata"] = dict(ctx.old["metadata"])
            if managed is not None:
                ctx.obj["metadata"]["managedFields"] = managed
        elif self.has_status:
            keep(ctx.obj, ctx.old, "status")

    def bump_generation(self, ctx: WriteContext) -> None:
        super().bump_generation(ctx)
        assert ctx.old is not None
        # Without a status subresource the status is a field like any other.
        if not self.has_status and ctx.obj.get("status") != ctx.old.get("status"):
            ctx.metadata["generation"] = ctx.old["metadata"].get("generation", 0) + 1


def rows_of(definition: dict[str, Any], remote: WebhookConversion | None = None) -> list[Resource]:
    """The rows that an established definition serves. All share a storage and what is extracted for field selectors.

    `remote` converts between its versions, if its strategy is Webhook.
    """
    spec = definition["spec"]
    names, group, plural = spec["names"], spec["group"], spec["names"]["plural"]
    namespaced = spec.get("scope") == "Namespaced"
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    stored_kind = Kind(group, stored, names["kind"], plural, namespaced)
    selectable = {
        version["name"]: tuple(
            field["jsonPath"].removeprefix(".")
            for field in version.get("selectableFields") or ()
            if "jsonPath" in field
        )
        for version in spec["versions"]
    }
    extracted = tuple(dict.fromkeys(path for paths in selectable.values() for path in paths))
    # Objects that were written while another version was the stored one still have its apiVersion.
    mixed = len((definition.get("status") or {}).get("storedVersions") or ()) > 1
    return [
        _row(definition, version, stored_kind, selectable[version["name"]], extracted, remote, mixed=mixed)
        for version in spec["versions"]
        if version.get("served")
    ]


def _row(
    definition: dict[str, Any], version: dict[str, Any], stored_kind: Kind, selectable: tuple[str, ...],
    extracted: tuple[str, ...], remote: WebhookConversion | None, *, mixed: bool,
) -> Resource:  # fmt: skip
    spec = definition["spec"]
    names = spec["names"]
    kind = Kind(spec["group"], version["name"], names["kind"], names["plural"], stored_kind.namespaced)
    custom = CustomVersion(definition, version)
    subresources = {}
    offered = version.get("subresources") or {}
    if "status" in offered:
        subresources["status"] = Subresource("status", kind, GET_PATCH_UPDATE)
    if "scale" in offered:
        group, api, scale = _SCALE_KIND
        subresources["scale"] = Subresource(
            "scale", Kind(group, api, scale, kind.plural, kind.namespaced), GET_PATCH_UPDATE
        )
    conversion: Conversion | None = None
    if remote is not None:
        mixed = mixed or remote.defaults_on_read(version["name"])
    elif definition["metadata"].get("generation", 1) > 1 and custom.judge.has_defaults:
        conversion = DefaultedOnRead(custom)
    terminating = "deletionTimestamp" in definition["metadata"]
    standard = ("metadata.name", "metadata.namespace") if kind.namespaced else ("metadata.name",)
    return Resource(
        kind=kind,
        singular=names.get("singular") or names["kind"].lower(),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        verbs=_TERMINATING_VERBS if terminating else READ_WRITE,
        subresources=subresources,
        strategy=CustomStrategy(has_status="status" in subresources),
        schema=CustomResourceSchema(kind, custom),
        storage=kind.resource,
        storage_kind=stored_kind,
        conversion=conversion,
        remote=remote,
        selectable_fields=standard + selectable,
        extracted=extracted,
        positions={path: extracted.index(path) for path in selectable},
        custom=custom,
        deprecation=custom.deprecation,
        mixed_versions=mixed,
    )
