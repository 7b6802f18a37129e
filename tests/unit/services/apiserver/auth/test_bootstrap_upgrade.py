"""Roles and bindings of an earlier version: they get what they lack, keep what they have, and nothing else happens."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from services.apiserver.auth import bootstrap_policy
from services.apiserver.auth.bootstrap_upgrade import AUTOUPDATE, additions

READ: dict[str, Any] = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}


def role(*rules: dict[str, Any], **annotations: str) -> dict[str, Any]:
    return {"metadata": {"name": "r", "labels": {}, "annotations": annotations}, "rules": list(rules)}


def test_what_this_version_starts_with_needs_nothing() -> None:
    for obj in bootstrap_policy.objects():
        assert additions(copy.deepcopy(obj), obj) == {}


@pytest.mark.parametrize(
    "present",
    [
        [READ],
        [{**READ, "verbs": ["get"]}, {**READ, "verbs": ["list", "watch"]}],
        [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
        [{**READ, "resources": ["pods", "deployments"], "apiGroups": ["", "apps"]}],
    ],
)
def test_a_right_that_is_there_in_other_words_is_not_added(present: list[dict[str, Any]]) -> None:
    assert additions(role(*present), role(READ)) == {}


@pytest.mark.parametrize(
    "present",
    [
        [],
        [{**READ, "verbs": ["get"]}],
        [{**READ, "apiGroups": [""]}],
        [{**READ, "resources": ["pods"]}],
        [{**READ, "resourceNames": ["one"]}],
        [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
    ],
)
def test_a_right_that_lacks_is_added_to_what_is_there(present: list[dict[str, Any]]) -> None:
    assert additions(role(*present), role(READ)) == {"rules": [*present, READ]}


def test_urls_and_single_objects_are_told_apart() -> None:
    url = {"nonResourceURLs": ["/livez", "/livez/etcd"], "verbs": ["get"]}
    assert additions(role({"nonResourceURLs": ["/livez*"], "verbs": ["get"]}), role(url)) == {}
    assert additions(role({"nonResourceURLs": ["/livez"], "verbs": ["get"]}), role(url))
    one = {**READ, "resourceNames": ["one"]}
    assert additions(role({**READ, "resourceNames": ["one", "two"]}), role(one)) == {}
    assert additions(role({**READ, "resourceNames": ["two"]}), role(one))


def test_who_says_so_keeps_the_role_as_it_is() -> None:
    assert additions(role(**{AUTOUPDATE: "false"}), role(READ, **{AUTOUPDATE: "true"})) == {}
    assert additions(role(READ), role(READ, **{AUTOUPDATE: "true"})) == {
        "metadata": {"annotations": {AUTOUPDATE: "true"}}
    }


def test_a_binding_gets_the_subjects_that_it_lacks() -> None:
    mine, new = {"kind": "User", "name": "me"}, {"kind": "User", "name": "system:kube-scheduler"}
    present = {"metadata": {"name": "b"}, "subjects": [mine]}
    assert additions(present, {"metadata": {"name": "b"}, "subjects": [new]}) == {"subjects": [mine, new]}


def test_the_rules_of_an_aggregated_role_are_left_to_its_controller() -> None:
    assert additions(role(), {**role(READ), "aggregationRule": {"clusterRoleSelectors": []}}) == {}
