"""Options from queries and delete bodies."""

from __future__ import annotations

import pytest

from machinery.api import errors
from services.apiserver.rest import options
from services.apiserver.rest.paths import split_target


def query(text: str) -> dict[str, list[str]]:
    return split_target(f"/x?{text}")[1]


def test_list_options() -> None:
    got = options.list_options(query("labelSelector=a%3Db&limit=5&continue=tok&resourceVersion=7"))
    assert (got.label_selector, got.limit, got.continue_token, got.resource_version) == ("a=b", 5, "tok", "7")
    with pytest.raises(errors.BadRequest, match="ParseInt"):
        options.list_options(query("limit=many"))


def test_watch_options() -> None:
    got = options.watch_options(query("sendInitialEvents=true&allowWatchBookmarks=1&timeoutSeconds=9"))
    assert got.send_initial_events is True
    assert got.allow_bookmarks
    assert got.timeout_seconds == 9
    assert options.watch_options(query("watch=1")).send_initial_events is None


def test_the_manager_is_the_program_unless_it_is_named() -> None:
    assert options.write_options({}, "kubectl/v1.37 (linux)").field_manager == "kubectl"
    assert options.write_options(query("fieldManager=me"), "kubectl/v1").field_manager == "me"


@pytest.mark.parametrize(
    "text", ["dryRun=Some", "fieldValidation=Sometimes", "fieldManager=" + "x" * 129, "fieldManager=a%00b"]
)
def test_options_that_make_no_sense_are_invalid(text: str) -> None:
    with pytest.raises(errors.Invalid):
        options.write_options(query(text), "x")


def test_delete_options_from_body_or_query() -> None:
    body = {
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u"},
        "dryRun": ["All"],
    }
    got = options.delete_options({}, body)
    assert (got.grace_period_seconds, got.propagation_policy, got.uid, got.dry_run) == (0, "Foreground", "u", True)
    got = options.delete_options(query("gracePeriodSeconds=5&propagationPolicy=Orphan"), None)
    assert (got.grace_period_seconds, got.propagation_policy) == (5, "Orphan")
    with pytest.raises(errors.Invalid):
        options.delete_options({}, {"propagationPolicy": "Sometimes"})
    with pytest.raises(errors.Invalid):
        options.delete_options({}, {"propagationPolicy": "Orphan", "orphanDependents": True})
    with pytest.raises(errors.BadRequest):
        options.delete_options({}, {"kind": "Pod"})
