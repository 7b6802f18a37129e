"""CustomResourceDefinitions: names, versions, schemas, rules, columns, and what may not change."""

from __future__ import annotations

import copy
import re
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names, structural

Obj = dict[str, Any]

_VERSION_SCHEMA = "schema.openAPIV3Schema"
_SIMPLE_PATH = re.compile(r"(\.[A-Za-z_][\w-]*(\['[^']+'\])*|\['[^']+'\])+\Z").match
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("int32", "int64", "float", "double", "byte", "date", "date-time", "password")
SELECTABLE_FIELDS_MAX = 8


def create(obj: Obj) -> list[Cause]:
    """A new definition."""
    spec = obj.get("spec") or {}
    group = spec.get("group") or ""
    found = _identity(obj, spec, group)
    found += _names(spec.get("names") or {})
    found += _versions(spec)
    found += _conversion(spec)
    if spec.get("preserveUnknownFields"):
        detail = "must be false in order to use defaults in the schema"
        found.append(causes.invalid("spec.preserveUnknownFields", True, detail))
    return found


def _identity(obj: Obj, spec: Obj, group: str) -> list[Cause]:
    found: list[Cause] = []
    if group:
        found += [causes.invalid("spec.group", group, why) for why in names.dns_subdomain(group)]
        if "." not in group:
            found.append(causes.invalid("spec.group", group, "should be a domain with at least one dot"))
    plural = (spec.get("names") or {}).get("plural") or ""
    name = (obj.get("metadata") or {}).get("name") or ""
    if name and plural and group and name != f"{plural}.{group}":
        found.append(causes.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io"):
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        approved = annotations.get("api-approved.kubernetes.io") or ""
        if not approved.startswith(("https://", "http://", "unapproved")):
            detail = 'protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111'
            found.append(causes.required("metadata.annotations[api-approved.kubernetes.io]", detail))
    return found


def _names(given: Obj) -> list[Cause]:
    found: list[Cause] = []
    for field in ("plural", "singular"):
        value = given.get(field)
        if value:
            found += [causes.invalid(f"spec.names.{field}", value, why) for why in names.dns_1035_label(value)]
    for field in ("kind", "listKind"):
        value = given.get(field)
        if value:
            found += [
                causes.invalid(f"spec.names.{field}", value, f"may have mixed case, but should otherwise match: {why}")
                for why in names.dns_1035_label(value.lower())
            ]
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        detail = "kind and listKind may not be the same"
        found.append(causes.invalid("spec.names.listKind", given["listKind"], detail))
    for field in ("shortNames", "categories"):
        for index, value in enumerate(given.get(field) or ()):
            at = f"spec.names.{field}[{index}]"
            found += [causes.invalid(at, value, why) for why in names.dns_1035_label(value)]
    return found


def _versions(spec: Obj) -> list[Cause]:
    found: list[Cause] = []
    versions = spec.get("versions") or []
    stored = sum(bool(version.get("storage")) for version in versions)
    if versions and stored != 1:
        detail = "must have exactly one version marked as storage version"
        found.append(causes.invalid("spec.versions", [version.get("name") for version in versions], detail))
    seen: set[str] = set()
    for index, version in enumerate(versions):
        here = f"spec.versions[{index}]"
        name = version.get("name") or ""
        if name:
            found += [causes.invalid(f"{here}.name", name, why) for why in names.dns_1035_label(name)]
        if name in seen:
            found.append(
                causes.invalid(
                    "spec.versions", [one.get("name") for one in versions], "must contain unique version names"
                )
            )
        seen.add(name)
        found += _version(version, here)
    return found


def _version(version: Obj, here: str) -> list[Cause]:
    found: list[Cause] = []
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    at = f"{here}.{_VERSION_SCHEMA}"
    if not isinstance(schema, dict):
        found.append(causes.required(at, "schemas are required"))
    else:
        found += structural.problems(schema, at)
        if not found:
            found += _defaults(schema, at)
            found += _rules(schema, at)
    scale = (version.get("subresources") or {}).get("scale")
    if scale is not None:
        for field, prefix in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
            path = scale.get(field) or ""
            if path and not path.startswith(prefix):
                detail = f"should be a json path under {prefix[:-1]}"
                found.append(causes.invalid(f"{here}.subresources.scale.{field}", path, detail))
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        place = f"{here}.additionalPrinterColumns[{index}]"
        if column.get("type") and column["type"] not in _COLUMN_TYPES:
            detail = "must be one of " + ",".join(_COLUMN_TYPES)
            found.append(causes.invalid(f"{place}.type", column["type"], detail))
        if column.get("format") and column["format"] not in _COLUMN_FORMATS:
            detail = "must be one of " + ",".join(sorted(_COLUMN_FORMATS))
            found.append(causes.invalid(f"{place}.format", column["format"], detail))
        path = column.get("jsonPath") or ""
        if path and not path.startswith((".", "[")):
            found.append(causes.invalid(f"{place}.jsonPath", path, "must be a simple json path starting with ."))
    return found + _selectable(version, schema, here)


def _selectable(version: Obj, schema: Any, here: str) -> list[Cause]:
    fields = version.get("selectableFields") or []
    found: list[Cause] = []
    if len(fields) > SELECTABLE_FIELDS_MAX:
        found.append(causes.too_many(f"{here}.selectableFields", len(fields), SELECTABLE_FIELDS_MAX))
    seen: set[str] = set()
    for index, field in enumerate(fields):
        at, path = f"{here}.selectableFields[{index}].jsonPath", field.get("jsonPath") or ""
        if not path:
            continue
        if path in seen:
            found.append(causes.duplicate(at, path))
        seen.add(path)
        if not _SIMPLE_PATH(path):
            found.append(causes.invalid(at, path, "is an invalid path: must be a simple json path starting with ."))
        elif path.startswith(".metadata"):
            found.append(causes.invalid(at, path, "must not point to fields in metadata"))
        elif isinstance(schema, dict) and _kind_at(schema, path) not in ("string", "integer", "boolean"):
            detail = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with "
                "formats are allowed."
            )
            found.append(causes.invalid(at, path, detail))
    return found


def _kind_at(schema: Obj, path: str) -> str | None:
    for name in re.findall(r"\.([A-Za-z_][\w-]*)|\['([^']+)'\]", path):
        schema = (schema.get("properties") or {}).get(name[0] or name[1]) or {}
    return schema.get("type")


def _defaults(schema: Obj, path: str) -> list[Cause]:
    """Every default is an object of its own schema, with nothing that pruning would take away."""
    from services.apiserver.schema import custom

    found: list[Cause] = []
    if "default" in schema:
        value = copy.deepcopy(schema["default"])
        lost = custom.prune(schema, value, "")
        if lost:
            detail = "must not have unknown fields: " + ", ".join(lost)
            found.append(causes.invalid(f"{path}.default", schema["default"], detail))
        custom.default(schema, value)
        found += [
            Cause(one.reason, one.message, f"{path}.default.{one.field}" if one.field else f"{path}.default")
            for one in custom.judge(schema, value, "")
        ]
    for name, below in (schema.get("properties") or {}).items():
        found += _defaults(below, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found += _defaults(schema[name], f"{path}.{name}")
    return found


def _rules(schema: Obj, path: str) -> list[Cause]:
    if not _has_rules(schema):
        return []
    # CEL is loaded only where a schema has rules: it takes time and memory that most clusters never need.
    from services.apiserver.schema import rules_check

    return rules_check.problems(schema, path)


def _has_rules(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(_has_rules(one) for one in schema)
    if not isinstance(schema, dict):
        return False
    return bool(schema.get(structural.RULES)) or any(_has_rules(value) for value in schema.values())


def _conversion(spec: Obj) -> list[Cause]:
    conversion = spec.get("conversion") or {}
    webhook = conversion.get("webhook")
    if conversion.get("strategy") == "Webhook":
        if webhook is None or webhook.get("clientConfig") is None:
            detail = "required when strategy is set to Webhook"
            return [causes.required("spec.conversion.webhook.clientConfig", detail)]
        known = webhook.get("conversionReviewVersions") or []
        if known and not {"v1", "v1beta1"} & set(known):
            detail = "must include at least one of v1, v1beta1"
            return [causes.invalid("spec.conversion.webhook.conversionReviewVersions", known, detail)]
    elif webhook is not None:
        detail = "should not be set when strategy is not set to Webhook"
        return [causes.forbidden("spec.conversion.webhook", detail)]
    return []


def update(new: Obj, old: Obj) -> list[Cause]:
    """A changed definition: what its objects are known by stays; versions in which objects are stored stay."""
    found = create(new) if new.get("spec") != old.get("spec") else []
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    for field in ("group", "scope"):
        if spec.get(field) != before.get(field):
            found.append(causes.immutable(f"spec.{field}", spec.get(field)))
    for field in ("plural", "kind"):
        value = (spec.get("names") or {}).get(field)
        established = any(
            one.get("type") == "Established" and one.get("status") == "True"
            for one in (old.get("status") or {}).get("conditions") or ()
        )
        if established and value != (before.get("names") or {}).get(field):
            found.append(causes.immutable(f"spec.names.{field}", value))
    known = {version.get("name") for version in spec.get("versions") or ()}
    for index, name in enumerate((new.get("status") or {}).get("storedVersions") or ()):
        if name not in known:
            at = f"status.storedVersions[{index}]"
            found.append(
                causes.invalid(
                    at,
                    name,
                    "missing from spec.versions; was previously a storage version, and must remain in spec.versions "
                    "until a storage migration ensures no data remains persisted in "
                    + name
                    + " and removes "
                    + name
                    + " from status.storedVersions",
                )
            )
    return found
