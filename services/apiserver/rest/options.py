"""The options that stand in a query (or, for deletes, in the body), as the structs that handlers take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from machinery.api import errors
from machinery.api.errors import Cause
from services.apiserver import go_text
from services.apiserver.request import DeleteOptions, ListOptions, WatchOptions, WriteOptions
from services.apiserver.rest.paths import Query, is_true
from services.apiserver.schema import definitions, structure

_FIELD_VALIDATION = ("", "Ignore", "Warn", "Strict")
_PROPAGATION = ("", "Orphan", "Background", "Foreground")
FIELD_MANAGER_LENGTH_MAX = 128
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


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
        return go_text.int64(text)
    except ValueError as error:
        raise errors.BadRequest(str(error)) from error


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
    if "sendInitialEvents" in query:
        why = "Forbidden: sendInitialEvents is forbidden for list"
        raise errors.invalid("meta.k8s.io", "ListOptions", "", [Cause("FieldValueForbidden", why, "sendInitialEvents")])
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
    query: Query,
    user_agent: str,
    duplicates: tuple[str, ...] = (),
    *,
    kind: str = "CreateOptions",
    patch_type: str = "",
) -> WriteOptions:
    """Options of create, update and patch; `kind` is how they are called there. Raises Invalid as upstream does for
    unknown values."""
    if not query and patch_type != "apply":
        return WriteOptions(field_manager=_default_manager(user_agent), duplicate_fields=duplicates)
    causes: list[Cause] = []
    manager = first(query, "fieldManager")
    force = is_true(query, "force")
    if patch_type == "apply" and not manager:
        causes.append(Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager"))
    if patch_type not in ("", "apply") and force:
        causes.append(Cause("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force"))
    causes += _manager_causes(manager)
    dry_run = _dry_run(query.get("dryRun", ()), causes)
    validation = first(query, "fieldValidation")
    if validation not in _FIELD_VALIDATION:
        message = f'Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
        causes.append(Cause("FieldValueNotSupported", message, "fieldValidation"))
    if causes:
        raise errors.invalid("meta.k8s.io", kind, "", causes)
    return WriteOptions(
        dry_run=dry_run,
        field_manager=manager or _default_manager(user_agent),
        field_validation=validation,
        force=force,
        duplicate_fields=duplicates,
    )


def _manager_causes(manager: str) -> Iterator[Cause]:
    size = len(manager.encode())
    if size > FIELD_MANAGER_LENGTH_MAX:
        message = f"Too long: may not be more than {FIELD_MANAGER_LENGTH_MAX} bytes"
        yield Cause("FieldValueTooLong", message, "fieldManager")
    if not manager.isprintable():
        at = next(index for index, char in enumerate(manager) if not char.isprintable())
        place = len(manager[:at].encode())
        why = f"invalid character U+{ord(manager[at]):04X} (at position {place})"
        yield Cause("FieldValueInvalid", f"Invalid value: {go_text.quoted(manager)}: {why}", "fieldManager")


def _dry_run(values: Any, causes: list[Cause]) -> bool:
    if any(value != "All" for value in values):
        shown = orjson.dumps(list(values)).decode()
        message = f'Unsupported value: {shown}: supported values: "All"'
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
        for fault in structure.walk(definitions.node_named(_DELETE_OPTIONS), body, ""):
            if fault.sort is structure.Sort.TYPE:
                raise errors.BadRequest(fault.message)
        grace, orphan = body.get("gracePeriodSeconds"), body.get("orphanDependents")
        preconditions = body.get("preconditions") or {}
        policy, dry_values = body.get("propagationPolicy") or "", body.get("dryRun") or ()
    else:
        grace = number(query, "gracePeriodSeconds") if first(query, "gracePeriodSeconds") else None
        orphan = is_true(query, "orphanDependents") if "orphanDependents" in query else None
        preconditions, policy = {}, first(query, "propagationPolicy")
        dry_values = ()
    if policy and orphan is not None:
        message = f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be both set'
        causes.append(Cause("FieldValueInvalid", message, "propagationPolicy"))
    if policy not in _PROPAGATION:
        message = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        causes.append(Cause("FieldValueNotSupported", message, "propagationPolicy"))
    dry_run = _dry_run((*dry_values, *query.get("dryRun", ())), causes)
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
