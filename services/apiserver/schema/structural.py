"""Is a CRD's openAPIV3Schema structural? (k8s.io/apiextensions-apiserver/pkg/apiserver/schema and its validation.)

A structural schema says the type of everything; value validations nested in allOf, anyOf, oneOf and not add no types,
defaults or descriptions. Only such schemas can prune, default and be merged, so others are refused when the CRD is
written.
"""

from __future__ import annotations

import re
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, patterns

Schema = dict[str, Any]

_TYPES = ("object", "array", "string", "integer", "number", "boolean")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_FORBIDDEN = ("definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties", "readOnly",
              "writeOnly", "xml", "$ref", "$schema")  # fmt: skip
_STRUCTURE_ONLY = ("type", "default", "title", "description", "nullable", "additionalProperties")
_STRUCTURE_EXTENSIONS = (
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
)  # fmt: skip
DEPTH_MAX = 64
"""A schema nested deeper is refused: nothing real is, and every walk over objects is as deep as its schema."""

INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
MAP_TYPE = "x-kubernetes-map-type"
RULES = "x-kubernetes-validations"


def problems(schema: Schema, path: str) -> list[Cause]:
    """What keeps a version's schema (at `path` in the CRD) from being structural; empty if it is."""
    found: list[Cause] = []
    if schema.get("type") != "object":
        if schema.get("type"):
            found.append(causes.invalid(f"{path}.type", schema["type"], "must be object at the root"))
        else:
            found.append(causes.required(f"{path}.type", "must not be empty at the root"))
    if schema.get("nullable"):
        found.append(causes.forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    found += _metadata(schema, path)
    found += _node(schema, path, 0)
    return found


def _metadata(schema: Schema, path: str) -> list[Cause]:
    """The root's metadata may only restrict name and generateName."""
    metadata = (schema.get("properties") or {}).get("metadata")
    if not isinstance(metadata, dict):
        return []
    at = f"{path}.properties[metadata]"
    found: list[Cause] = []
    if metadata.get("type") not in (None, "object"):
        found.append(causes.invalid(f"{at}.type", metadata["type"], "must be object"))
    for name in metadata.get("properties") or ():
        if name not in ("name", "generateName"):
            detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            found.append(causes.forbidden(at, detail))
            break
    return found


def _node(schema: Any, path: str, depth: int) -> list[Cause]:
    if not isinstance(schema, dict):
        return [causes.invalid(path, schema, "must be a schema")]
    if depth > DEPTH_MAX:
        return [causes.forbidden(path, f"must not be nested deeper than {DEPTH_MAX} levels")]
    found = _type(schema, path) + _keywords(schema, path)
    for name, below in (schema.get("properties") or {}).items():
        found += _node(below, f"{path}.properties[{name}]", depth + 1)
    items = schema.get("items")
    if isinstance(items, list):
        found.append(causes.forbidden(f"{path}.items", "items must be a schema object and not an array"))
    elif items is not None:
        found += _node(items, f"{path}.items", depth + 1)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        found += _node(extra, f"{path}.additionalProperties", depth + 1)
    elif extra is False:
        detail = "must not be used in a structural schema: unknown fields are pruned"
        found.append(causes.forbidden(f"{path}.additionalProperties", detail))
    if extra is not None and extra is not False and schema.get("properties"):
        detail = "additionalProperties and properties are mutual exclusive"
        found.append(causes.forbidden(f"{path}.additionalProperties", detail))
    for name in _JUNCTORS:
        for index, nested in enumerate(schema.get(name) or ()):
            found += _nested(nested, f"{path}.{name}[{index}]", schema, depth + 1)
    if schema.get("not") is not None:
        found += _nested(schema["not"], f"{path}.not", schema, depth + 1)
    return found


def _type(schema: Schema, path: str) -> list[Cause]:
    declared = schema.get("type")
    if schema.get(INT_OR_STRING):
        if declared:
            return [causes.invalid(f"{path}.type", declared, "must be empty if x-kubernetes-int-or-string is true")]
        return []
    if not declared:
        if schema.get(PRESERVE):
            return []
        return [causes.required(f"{path}.type", "must not be empty for specified object fields")]
    if declared not in _TYPES:
        return [causes.not_supported(f"{path}.type", declared, _TYPES)]
    return []


def _keywords(schema: Schema, path: str) -> list[Cause]:
    found = [causes.forbidden(f"{path}.{name}", f"{name} is not supported") for name in _FORBIDDEN if schema.get(name)]
    declared = schema.get("type")
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        found.append(causes.forbidden(f"{path}.uniqueItems", detail))
    if schema.get(PRESERVE) is False:
        found.append(causes.invalid(f"{path}.{PRESERVE}", False, "must be true or undefined"))
    if schema.get(EMBEDDED):
        if declared != "object":
            found.append(
                causes.invalid(
                    f"{path}.type", declared or "", "must be object if x-kubernetes-embedded-resource is true"
                )
            )
        if not schema.get("properties") and not schema.get(PRESERVE):
            detail = (
                "must not be empty if x-kubernetes-embedded-resource is true without "
                "x-kubernetes-preserve-unknown-fields"
            )
            found.append(causes.required(f"{path}.properties", detail))
    if declared == "array" and schema.get("items") is None:
        found.append(causes.required(f"{path}.items", "must be specified"))
    if schema.get("pattern") is not None:
        why = patterns.problem(schema["pattern"])
        if why:
            detail = f"must be a valid regular expression, but isn't: {why}"
            found.append(causes.invalid(f"{path}.pattern", schema["pattern"], detail))
    return found + _lists(schema, path)


def _lists(schema: Schema, path: str) -> list[Cause]:
    found: list[Cause] = []
    kind, keys = schema.get(LIST_TYPE), schema.get(LIST_KEYS)
    at = f"{path}.{LIST_TYPE}"
    if kind is not None and schema.get("type") != "array":
        found.append(
            causes.invalid(
                f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified"
            )
        )
    if kind is not None and kind not in ("atomic", "set", "map"):
        found.append(causes.not_supported(at, kind, ("atomic", "map", "set")))
    map_type = schema.get(MAP_TYPE)
    if map_type is not None:
        if schema.get("type") != "object":
            found.append(
                causes.invalid(
                    f"{path}.type", schema.get("type", ""), "must be object if x-kubernetes-map-type is specified"
                )
            )
        if map_type not in ("atomic", "granular"):
            found.append(causes.not_supported(f"{path}.{MAP_TYPE}", map_type, ("atomic", "granular")))
    if kind != "map":
        if keys:
            found.append(
                causes.forbidden(
                    f"{path}.{LIST_KEYS}", "x-kubernetes-list-map-keys may only be set with x-kubernetes-list-type: map"
                )
            )
        if kind == "set":
            found += _set_items(schema.get("items") or {}, path)
        return found
    items = schema.get("items") or {}
    if not keys:
        found.append(causes.required(f"{path}.{LIST_KEYS}", "must not be empty if x-kubernetes-list-type is map"))
    if items.get("type") != "object":
        found.append(
            causes.invalid(
                f"{path}.items.type", items.get("type", ""), f"must be object if parent array's {LIST_TYPE} is map"
            )
        )
    for key in keys or ():
        below = (items.get("properties") or {}).get(key)
        if below is None:
            detail = "entries must all be names of item properties"
            found.append(causes.invalid(f"{path}.{LIST_KEYS}", keys, detail))
        elif below.get("type") in ("object", "array"):
            detail = f"must be a scalar type if parent array's {LIST_TYPE} is map"
            found.append(causes.invalid(f"{path}.items.properties[{key}].type", below["type"], detail))
        elif key not in (items.get("required") or ()) and "default" not in below:
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            found.append(causes.required(f"{path}.items.properties[{key}].default", detail))
    return found


def _set_items(items: Schema, path: str) -> list[Cause]:
    if items.get("nullable"):
        return [causes.forbidden(f"{path}.items.nullable", "cannot be nullable when x-kubernetes-list-type is set")]
    atomic = (
        items.get("x-kubernetes-map-type") == "atomic"
        if items.get("type") == "object"
        else (items.get("type") != "array" or items.get(LIST_TYPE) in (None, "atomic"))
    )
    if not atomic:
        detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
        return [causes.invalid(f"{path}.items", items.get("type"), detail)]
    return []


def _nested(schema: Any, path: str, parent: Schema, depth: int) -> list[Cause]:
    """A schema inside a logical junctor: values only, over fields that the structure outside names."""
    if not isinstance(schema, dict):
        return [causes.invalid(path, schema, "must be a schema")]
    if depth > DEPTH_MAX:
        return [causes.forbidden(path, f"must not be nested deeper than {DEPTH_MAX} levels")]
    found: list[Cause] = []
    for name in _STRUCTURE_ONLY:
        if schema.get(name) not in (None, False, ""):
            if name == "type" and parent.get(INT_OR_STRING):
                continue
            found.append(causes.forbidden(f"{path}.{name}", "must be empty to be structural"))
    for name in _STRUCTURE_EXTENSIONS:
        if schema.get(name):
            found.append(causes.forbidden(f"{path}.{name}", "must be empty to be structural"))
    outside = parent.get("properties") or {}
    for name, below in (schema.get("properties") or {}).items():
        at = f"{path}.properties[{name}]"
        if name == "metadata" and depth == 1:
            found.append(causes.forbidden(at, "must not be specified in a nested context"))
        elif name not in outside:
            found.append(causes.required(f"{_outside(path)}.properties[{name}]", f"because it is defined in {at}"))
        else:
            found += _nested(below, at, outside[name], depth + 1)
    if isinstance(schema.get("items"), dict):
        if not isinstance(parent.get("items"), dict):
            found.append(causes.required(f"{_outside(path)}.items", f"because it is defined in {path}.items"))
        else:
            found += _nested(schema["items"], f"{path}.items", parent["items"], depth + 1)
    for name in _JUNCTORS:
        for index, one in enumerate(schema.get(name) or ()):
            found += _nested(one, f"{path}.{name}[{index}]", parent, depth + 1)
    if schema.get("not") is not None:
        found += _nested(schema["not"], f"{path}.not", parent, depth + 1)
    return found


def _outside(path: str) -> str:
    return re.sub(r"\.(allOf|anyOf|oneOf)\[\d+\]|\.not(?=\.|$)", "", path)
