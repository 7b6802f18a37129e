"""How a body becomes an object: it is of the path's kind, and is read as that."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from machinery.api import errors
from services.apiserver.registry.resource import Resource
from services.apiserver.request import WriteOptions
from services.apiserver.schema import causes, definitions


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
    """The body must say that it is of the path's kind, or nothing. Raises BadRequest, for custom kinds Invalid."""
    kind = resource.kind
    if not isinstance(body, dict):
        raise errors.BadRequest(f"the body must be a {kind.kind} object")
    given_kind, given_version = body.get("kind") or kind.kind, body.get("apiVersion") or kind.api_version
    if given_kind != kind.kind or given_version != kind.api_version:
        raise _other_kind(resource, str(given_kind), str(given_version))
    body["kind"], body["apiVersion"] = kind.kind, kind.api_version


_SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"


def _other_kind(resource: Resource, given: str, api_version: str) -> errors.ApiError:
    """What upstream says: of what its decoder does not know, of what it can't convert, and of another version."""
    kind = resource.kind
    group, _, version = api_version.rpartition("/")
    another_version = errors.BadRequest(
        f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
    )
    if resource.custom is not None:
        if given == kind.kind:
            return another_version
        return errors.invalid(kind.group, kind.kind, "", [causes.invalid("kind", given, f"must be {kind.kind}")])
    if definitions.definition_name(group, version, given) is None:
        why = f'no kind "{given}" is registered for version "{api_version}" in scheme "{_SCHEME}"'
    elif (group, given) == (kind.group, kind.kind):
        return another_version
    else:
        internal = "core" if kind.group in ("", "events.k8s.io") else kind.group.partition(".")[0]
        why = f"converting ({version}.{given}) to ({internal}.{kind.kind}): unknown conversion"
    return errors.BadRequest(f'{given} in version "{version}" cannot be handled as a {kind.kind}: {why}')
