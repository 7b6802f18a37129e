"""How a body becomes an object: it is of the path's kind, and is read as that."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from machinery.api import errors
from services.apiserver.registry.resource import Resource
from services.apiserver.request import WriteOptions


def take_in(
    resource: Resource, body: dict[str, Any], options: WriteOptions, touched: Collection[str] | None = None
) -> list[str]:
    """Check that a body is what the path is about, and read it as its kind. Changes it; returns warnings.

    `touched`: all other top-level fields are as they were stored, and so were read before; None: nothing is known.
    """
    check_kind(resource, body)
    validation = options.field_validation or "Warn"
    warnings = resource.schema.take_in(body, validation, options.duplicate_fields, touched)
    return [] if options.field_validation == "Ignore" else warnings


def check_kind(resource: Resource, body: dict[str, Any]) -> None:
    """The body must say that it is of the path's kind, or nothing. Raises BadRequest."""
    kind = resource.kind
    if not isinstance(body, dict):
        raise errors.BadRequest(f"the body must be a {kind.kind} object")
    given_kind, given_version = body.get("kind") or kind.kind, body.get("apiVersion") or kind.api_version
    if given_kind != kind.kind or given_version != kind.api_version:
        raise errors.BadRequest(
            f'{given_kind} in version "{given_version.rpartition("/")[2]}" cannot be handled as a {kind.kind}: '
            f"the API version in the data ({given_version}, Kind={given_kind}) does not match the expected API version "
            f"({kind.api_version}, Kind={kind.kind})"
        )
    body["kind"], body["apiVersion"] = kind.kind, kind.api_version
