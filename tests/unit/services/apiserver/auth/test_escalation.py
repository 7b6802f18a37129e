"""No one grants more than they hold."""

from __future__ import annotations

from typing import Any

import pytest

from machinery.api import errors
from services.apiserver.auth import rbac
from services.apiserver.auth.escalation import check_binding, check_role
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.request import User

JANE = User("jane", groups=("system:authenticated",))
ROOT = User("root", groups=("system:masters",))


def authorizer_where_jane_holds(*rules: dict[str, Any]) -> Authorizer:
    authorizer = Authorizer()
    authorizer.changed(rbac.CLUSTER_ROLES, None, {"metadata": {"name": "held"}, "rules": list(rules)})
    bound = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "held"},
        "subjects": [{"kind": "User", "name": "jane"}],
    }
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, None, bound)
    return authorizer


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(","), "verbs": verbs.split(","), **more}


def a_role(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "new"}, "rules": list(rules), **more}


def test_a_role_within_ones_rights_may_be_written() -> None:
    authorizer = authorizer_where_jane_holds(rule("get,list,watch", "pods,pods/log"))
    check_role(authorizer, JANE, "clusterroles", a_role(rule("get,list", "pods")))
    check_role(authorizer, JANE, "clusterroles", a_role(rule("get", "pods", resourceNames=["web"])))


@pytest.mark.parametrize(
    "granted",
    [
        rule("delete", "pods"),
        rule("*", "pods"),
        rule("get", "*"),
        rule("get", "secrets"),
        rule("get", "pods", "apps"),
        rule("get", "pods/exec"),
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ],
)
def test_a_role_beyond_ones_rights_is_refused_and_says_what_is_missing(granted: dict[str, Any]) -> None:
    authorizer = authorizer_where_jane_holds(rule("get,list,watch", "pods"))
    with pytest.raises(errors.Forbidden, match="attempting to grant RBAC permissions not currently held"):
        check_role(authorizer, JANE, "clusterroles", a_role(granted))


def test_an_aggregated_role_needs_every_right() -> None:
    authorizer = authorizer_where_jane_holds(rule("get", "pods"))
    selector = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    with pytest.raises(errors.Forbidden):
        check_role(authorizer, JANE, "clusterroles", a_role(aggregationRule=selector))


def test_escalate_lifts_the_check() -> None:
    authorizer = authorizer_where_jane_holds(rule("escalate", "clusterroles", rbac.RBAC_GROUP))
    check_role(authorizer, JANE, "clusterroles", a_role(rule("*", "*", "*")))


def test_an_update_that_leaves_the_rules_alone_is_allowed() -> None:
    authorizer = authorizer_where_jane_holds()
    old = a_role(rule("*", "*"))
    check_role(authorizer, JANE, "clusterroles", {**old, "metadata": {"name": "new", "labels": {"a": "b"}}}, old)


def a_binding(role: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "b2"},
        "roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": "joe"}],
    }


def test_binding_a_role_needs_its_rights_or_the_verb_bind() -> None:
    powerful = {"metadata": {"name": "powerful"}, "rules": [rule("*", "*", "*")]}
    plain = authorizer_where_jane_holds(rule("get", "pods"))
    plain.changed(rbac.CLUSTER_ROLES, None, powerful)
    with pytest.raises(errors.Forbidden):
        check_binding(plain, JANE, "clusterrolebindings", a_binding("powerful"))
    check_binding(plain, JANE, "clusterrolebindings", a_binding("held"))
    check_binding(plain, ROOT, "clusterrolebindings", a_binding("powerful"))
    binder = authorizer_where_jane_holds(rule("bind", "clusterroles", rbac.RBAC_GROUP, resourceNames=["powerful"]))
    binder.changed(rbac.CLUSTER_ROLES, None, powerful)
    check_binding(binder, JANE, "clusterrolebindings", a_binding("powerful"))


def test_binding_a_role_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(errors.NotFound):
        check_binding(authorizer_where_jane_holds(), JANE, "clusterrolebindings", a_binding("nothing"))
