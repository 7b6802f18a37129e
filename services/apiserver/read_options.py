"""Which options of a list or a watch make sense together, and what their resourceVersion says."""

from __future__ import annotations

from machinery.api import errors
from services.apiserver import go_text
from services.apiserver.registry.resource import Resource
from services.apiserver.request import ListOptions, WatchOptions


def check_list_options(options: ListOptions) -> None:
    """Refuse combinations that upstream refuses. Raises BadRequest or Invalid."""
    match, version = options.resource_version_match, options.resource_version
    if match:
        causes = []
        if not version:
            causes.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if options.continue_token:
            causes.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            causes.append(_unsupported(match, '"Exact", "NotOlderThan", ""'))
        if match == "Exact" and version == "0":
            causes.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
        _refuse(causes)
    if options.continue_token and version not in ("", "0"):
        raise errors.BadRequest("specifying resource version is not allowed when using continue")
    if version:
        try:
            go_text.uint64(version)
        except ValueError as err:
            raise errors.BadRequest(f"invalid resource version: {_version_cause(version, err)}") from err


def check_watch_options(resource: Resource, options: WatchOptions) -> None:
    """Refuse combinations that upstream refuses. Raises Invalid."""
    match, version = options.resource_version_match, options.resource_version
    causes = []
    if options.send_initial_events is not None and match != "NotOlderThan":
        causes.append(_forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match:
        if options.send_initial_events is None:
            causes.append(
                _forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
            )
        if match != "NotOlderThan":
            causes.append(_unsupported(match, '"NotOlderThan"'))
    _refuse(causes)
    if version:
        try:
            go_text.uint64(version)
        except ValueError as err:
            why = f"Invalid value: {go_text.quoted(version)}: {err}"
            cause = errors.Cause("FieldValueInvalid", why, "resourceVersion")
            raise errors.invalid(resource.group, resource.plural, "", [cause]) from err


def _forbidden(why: str) -> errors.Cause:
    return errors.Cause("FieldValueForbidden", f"Forbidden: {why}", "resourceVersionMatch")


def _unsupported(match: str, known: str) -> errors.Cause:
    why = f"Unsupported value: {go_text.quoted(match)}: supported values: {known}"
    return errors.Cause("FieldValueNotSupported", why, "resourceVersionMatch")


def _refuse(causes: list[errors.Cause]) -> None:
    if causes:
        raise errors.invalid("meta.k8s.io", "ListOptions", "", causes)


def _version_cause(text: str, why: ValueError) -> str:
    return f"resourceVersion: Invalid value: {go_text.quoted(text)}: {why}"


def revision_of(text: str) -> int:
    try:
        return go_text.uint64(text)
    except ValueError as err:
        raise errors.BadRequest(_version_cause(text, err)) from err


def too_large(wanted: int, current: int) -> errors.Timeout:
    cause = errors.Cause("ResourceVersionTooLarge", "Too large resource version")
    return errors.Timeout(
        f"Too large resource version: {wanted}, current: {current}", causes=[cause], retry_after_seconds=1
    )
