"""Causes of an Invalid error, worded as k8s.io/apimachinery's field errors are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from machinery.api.errors import Cause

PROBLEMS_MAX = 100
"""How many unknown and duplicate fields of a body are told of; upstream's number."""


def _shown(value: Any) -> str:
    """A value as it stands in a message: strings quoted, numbers and booleans bare, objects and lists as JSON, nothing
    as null.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def required(field: str, detail: str = "") -> Cause:
    """`spec.selector: Required value`."""
    return Cause("FieldValueRequired", f"Required value: {detail}" if detail else "Required value", field)


def invalid(field: str, value: Any, detail: str) -> Cause:
    """`spec.replicas: Invalid value: -1: must be greater than or equal to 0`."""
    return Cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}", field)


def not_supported(field: str, value: Any, supported: Iterable[Any]) -> Cause:
    """`spec.type: Unsupported value: "x": supported values: "ClusterIP", "NodePort"`."""
    known = ", ".join(_shown(one) for one in sorted(supported))
    return Cause("FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {known}", field)


def duplicate(field: str, value: Any) -> Cause:
    """`spec.containers[1].name: Duplicate value: "a"`."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {_shown(value)}", field)


def forbidden(field: str, detail: str) -> Cause:
    """`spec: Forbidden: pod updates may not change fields other than …`."""
    return Cause("FieldValueForbidden", f"Forbidden: {detail}" if detail else "Forbidden", field)


def not_found(field: str, value: Any) -> Cause:
    """`spec.containers[0].volumeMounts[0].name: Not found: "data"`."""
    return Cause("FieldValueNotFound", f"Not found: {_shown(value)}", field)


def too_long(field: str, limit_bytes: int) -> Cause:
    """`metadata.annotations: Too long: may not be more than 262144 bytes`."""
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit_bytes} bytes", field)


def too_many(field: str, count: int, limit: int) -> Cause:
    """`webhooks: Too many: 200: must have at most 100 items`."""
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {limit} items", field)


def type_invalid(field: str, value: Any, detail: str) -> Cause:
    """`spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"`."""
    return Cause("FieldValueTypeInvalid", f"Invalid value: {_shown(value)}: {detail}", field)


IMMUTABLE = "field is immutable"


def immutable(field: str, value: Any) -> Cause:
    """`spec.selector: Invalid value: {…}: field is immutable`."""
    return invalid(field, value, IMMUTABLE)


def at_key(path: str, key: str) -> str:
    """The path of a map's entry: `metadata.labels[app]`."""
    return f"{path}[{key}]"
