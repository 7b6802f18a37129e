"""The options that stand in a query (or, for deletes, in the body), as the structs that handlers take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from machinery.api import errors
from machinery.api.errors import Cause
from services.apiserver.request import DeleteOptions, ListOptions, WatchOptions, WriteOptions
from services.apiserver.rest.paths import Query, is_true

_FIELD_VALIDATION = ("", "Ignore", "Warn", "Strict")
_PROPAGATION = ("", "Orphan", "Background", "Foreground")
FIELD_MANAGER_LENGTH_MAX = 128


def first(query: Query, key: str) -> str:
    """The value of a parameter, or ""."""
    values = query.get(key)
    return values[0] if values else ""


def number(query: Query, key: str) -> int:
    """A parameter that is a whole number, 0 if absent. Raises BadRequest."""
    text = first(query, key)
    if not text:
        return 0
    try:
        value = int(text)
    except ValueError as error:
        raise errors.BadRequest(f"{key}: Invalid value: {text!r} is not a whole number") from error
    if not -(2**63) <= value < 2**63:
        raise errors.BadRequest(f"{key}: Invalid value: {text!r} is out of range")
    return value


def version_to_get(query: Query) -> tuple[str, int]:
    """Of a get: the resourceVersion that is new enough, and the revision at which the object is meant (0: now).

    Upstream's get knows only the first; `resourceVersionMatch=Exact`, which its lists have, means the past here too.
    """
    version, match = first(query, "resourceVersion"), first(query, "resourceVersionMatch")
    if match != "Exact":
        return version, 0
    revision = number(query, "resourceVersion")
    if revision < 1:
        raise errors.BadRequest('resourceVersionMatch: "Exact" needs a resourceVersion that is greater than 0')
    return "", revision


def list_options(query: Query) -> ListOptions:
    """Options of list and deletecollection."""
    if not query:
        return ListOptions()
    limit = number(query, "limit")
    return ListOptions(
        label_selector=first(query, "labelSelector"),
        field_selector=first(query, "fieldSelector"),
        limit=max(limit, 0),
        continue_token=first(query, "continue"),
        resource_version=first(query, "resourceVersion"),
        resource_version_match=first(query, "resourceVersionMatch"),
    )


def watch_options(query: Query) -> WatchOptions:
    """Options of watch."""
    initial = query.get("sendInitialEvents")
    return WatchOptions(
        label_selector=first(query, "labelSelector"),
        field_selector=first(query, "fieldSelector"),
        resource_version=first(query, "resourceVersion"),
        resource_version_match=first(query, "resourceVersionMatch"),
        send_initial_events=None if initial is None else is_true(query, "sendInitialEvents"),
        allow_bookmarks=is_true(query, "allowWatchBookmarks"),
        timeout_seconds=max(number(query, "timeoutSeconds"), 0),
    )


def write_options(
    query: Query, user_agent: str, duplicates: tuple[str, ...] = (), kind: str = "CreateOptions"
) -> WriteOptions:
    """Options of create, update and patch; `kind` is how they are called there. Raises Invalid as upstream does for
    unknown values."""
    if not query:
        return WriteOptions(field_manager=_default_manager(user_agent), duplicate_fields=duplicates)
    causes: list[Cause] = []
    manager = first(query, "fieldManager")
    if len(manager) > FIELD_MANAGER_LENGTH_MAX:
        message = f"Too long: may not be more than {FIELD_MANAGER_LENGTH_MAX} bytes"
        causes.append(Cause("FieldValueTooLong", message, "fieldManager"))
    if not manager.isprintable():
        text = f'Invalid value: "{manager}": should only contain printable characters'
        causes.append(Cause("FieldValueInvalid", text, "fieldManager"))
    validation = first(query, "fieldValidation")
    if validation not in _FIELD_VALIDATION:
        message = f'Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
        causes.append(Cause("FieldValueNotSupported", message, "fieldValidation"))
    dry_run = _dry_run(query.get("dryRun", ()), causes)
    if causes:
        raise errors.invalid("meta.k8s.io", kind, "", causes)
    return WriteOptions(
        dry_run=dry_run,
        field_manager=manager or _default_manager(user_agent),
        field_validation=validation,
        force=is_true(query, "force"),
        duplicate_fields=duplicates,
    )


def check_patch(query: Query, write: WriteOptions, patch_type: str) -> None:
    """What only some types of patches may or must say. Raises Invalid."""
    causes: list[Cause] = []
    if patch_type == "apply" and not first(query, "fieldManager"):
        causes.append(Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager"))
    if write.force and patch_type != "apply":
        causes.append(Cause("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force"))
    if causes:
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", causes)


def _dry_run(values: Any, causes: list[Cause]) -> bool:
    for value in values:
        if value != "All":
            message = f'Unsupported value: "{value}": supported values: "All"'
            causes.append(Cause("FieldValueNotSupported", message, "dryRun"))
    return bool(values)


@lru_cache(maxsize=1024)
def _default_manager(user_agent: str) -> str:
    """Who is recorded as the manager when the request names none: the program's name from its user agent."""
    name = user_agent.partition("/")[0][:FIELD_MANAGER_LENGTH_MAX]
    return "".join(char for char in name if char.isprintable()) or "unknown"


def delete_options(query: Query, body: Mapping[str, Any] | None) -> DeleteOptions:
    """Options of delete: those in the body, or else in the query. Raises Invalid, BadRequest."""
    causes: list[Cause] = []
    if body:
        if body.get("kind", "DeleteOptions") != "DeleteOptions":
            raise errors.BadRequest(f'the body of a delete must be DeleteOptions, not "{body["kind"]}"')
        grace, orphan = body.get("gracePeriodSeconds"), body.get("orphanDependents")
        if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int)):
            raise errors.BadRequest("gracePeriodSeconds must be a whole number")
        preconditions = body.get("preconditions") or {}
        if not isinstance(preconditions, dict):
            raise errors.BadRequest("preconditions must be a mapping")
        policy, dry_values = body.get("propagationPolicy") or "", body.get("dryRun") or ()
    else:
        grace = number(query, "gracePeriodSeconds") if first(query, "gracePeriodSeconds") else None
        orphan = is_true(query, "orphanDependents") if "orphanDependents" in query else None
        preconditions, policy = {}, first(query, "propagationPolicy")
        dry_values = ()
    dry_run = _dry_run((*dry_values, *query.get("dryRun", ())), causes)
    if policy not in _PROPAGATION:
        message = f'Unsupported value: "{policy}": supported values: "Background", "Foreground", "Orphan"'
        causes.append(Cause("FieldValueNotSupported", message, "propagationPolicy"))
    if policy and orphan is not None:
        message = "Invalid value: orphanDependents and propagationPolicy cannot be both set"
        causes.append(Cause("FieldValueInvalid", message, "propagationPolicy"))
    if causes:
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", causes)
    if grace is not None and grace < 0:
        # Upstream takes a negative grace period as one second, the shortest graceful one.
        grace = 1
    return DeleteOptions(
        grace_period_seconds=grace,
        propagation_policy=policy,
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
        dry_run=dry_run,
        orphan_dependents=orphan,
    )
