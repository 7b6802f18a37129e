"""RBAC decides as upstream does, and follows every change of a role or a binding."""

from __future__ import annotations

from typing import Any

import pytest

from services.apiserver.auth import rbac
from services.apiserver.auth.attributes import Attributes, denied
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.request import User

JANE = User("jane", groups=("dev", "system:authenticated"))
READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}


def role(name: str, *rules: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "rules": list(rules)}


def binding(
    name: str, role_name: str, *subjects: dict[str, str], namespace: str = "", kind: str = "ClusterRole"
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": rbac.RBAC_GROUP, "kind": kind, "name": role_name},
        "subjects": list(subjects),
    }


def user_subject(name: str) -> dict[str, str]:
    return {"kind": "User", "name": name}


def may(authorizer: Authorizer, user: User, verb: str, resource: str, namespace: str = "", **more: str) -> bool:
    resource, _, subresource = resource.partition("/")
    attrs = Attributes(user, verb, more.get("group", ""), "v1", resource, subresource, namespace, more.get("name", ""))
    return authorizer.authorize(attrs).allowed


def test_nothing_is_allowed_without_a_binding() -> None:
    authorizer = Authorizer()
    authorizer.changed(rbac.CLUSTER_ROLES, None, role("reader", READ_PODS))
    assert not may(authorizer, JANE, "get", "pods", "default")


def test_a_cluster_role_binding_grants_in_every_namespace_and_at_the_cluster() -> None:
    authorizer = Authorizer()
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, None, binding("b", "reader", user_subject("jane")))
    authorizer.changed(rbac.CLUSTER_ROLES, None, role("reader", READ_PODS))
    assert may(authorizer, JANE, "get", "pods", "default")
    assert may(authorizer, JANE, "list", "pods")
    assert not may(authorizer, JANE, "delete", "pods", "default")
    assert not may(authorizer, JANE, "get", "pods", "default", group="apps")
    assert not may(authorizer, JANE, "get", "pods/log", "default")


def test_a_role_binding_grants_only_in_its_namespace() -> None:
    authorizer = Authorizer()
    authorizer.changed(rbac.ROLES, None, role("reader", READ_PODS, namespace="a"))
    bound = binding("b", "reader", {"kind": "Group", "name": "dev"}, namespace="a", kind="Role")
    authorizer.changed(rbac.ROLE_BINDINGS, None, bound)
    assert may(authorizer, JANE, "get", "pods", "a")
    assert not may(authorizer, JANE, "get", "pods", "b")
    assert not may(authorizer, JANE, "get", "pods")


@pytest.mark.parametrize(
    ("rule", "resource", "name", "allowed"),
    [
        ({"resources": ["*"]}, "pods/log", "", True),
        ({"resources": ["*/scale"]}, "deployments/scale", "", True),
        ({"resources": ["*/scale"]}, "deployments", "", False),
        ({"resources": ["pods"]}, "pods/log", "", False),
        ({"resources": ["pods/log"]}, "pods/log", "", True),
        ({"resources": ["pods"], "resourceNames": ["web"]}, "pods", "web", True),
        ({"resources": ["pods"], "resourceNames": ["web"]}, "pods", "db", False),
        ({"resources": ["pods"], "resourceNames": ["web"]}, "pods", "", False),
    ],
)
def test_wildcards_subresources_and_names(rule: dict[str, Any], resource: str, name: str, allowed: bool) -> None:
    authorizer = Authorizer()
    full = {"apiGroups": ["*"], "verbs": ["*"], **rule}
    authorizer.changed(rbac.CLUSTER_ROLES, None, role("r", full))
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, None, binding("b", "r", user_subject("jane")))
    assert may(authorizer, JANE, "get", resource, "default", name=name) is allowed


def test_names_of_one_rule_do_not_narrow_another() -> None:
    authorizer = Authorizer()
    named = {**READ_PODS, "resourceNames": ["web"]}
    authorizer.changed(rbac.CLUSTER_ROLES, None, role("r", named, READ_PODS, named))
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, None, binding("b", "r", user_subject("jane")))
    assert may(authorizer, JANE, "get", "pods", "default", name="db")


def test_changes_take_effect_at_once() -> None:
    authorizer = Authorizer()
    reader, bound = role("r", READ_PODS), binding("b", "r", user_subject("jane"))
    authorizer.changed(rbac.CLUSTER_ROLES, None, reader)
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, None, bound)
    assert may(authorizer, JANE, "get", "pods", "a")
    emptied = role("r")
    authorizer.changed(rbac.CLUSTER_ROLES, reader, emptied)
    assert not may(authorizer, JANE, "get", "pods", "a")
    authorizer.changed(rbac.CLUSTER_ROLES, emptied, reader)
    assert may(authorizer, JANE, "get", "pods", "a")
    moved = binding("b", "r", user_subject("joe"))
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, bound, moved)
    assert not may(authorizer, JANE, "get", "pods", "a")
    assert may(authorizer, User("joe"), "get", "pods", "a")
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, moved, None)
    assert not may(authorizer, User("joe"), "get", "pods", "a")


def test_a_service_account_is_the_user_that_its_token_proves() -> None:
    authorizer = Authorizer()
    authorizer.changed(rbac.CLUSTER_ROLES, None, role("r", READ_PODS))
    subject = {"kind": "ServiceAccount", "namespace": "a", "name": "robot"}
    authorizer.changed(rbac.ROLE_BINDINGS, None, binding("b", "r", subject, namespace="a"))
    assert may(authorizer, User("system:serviceaccount:a:robot"), "get", "pods", "a")
    assert not may(authorizer, User("system:serviceaccount:b:robot"), "get", "pods", "a")


def test_paths_match_exactly_or_by_prefix() -> None:
    authorizer = Authorizer()
    rule = {"nonResourceURLs": ["/healthz", "/api/*"], "verbs": ["get"]}
    authorizer.changed(rbac.CLUSTER_ROLES, None, role("r", rule))
    authorizer.changed(rbac.CLUSTER_ROLE_BINDINGS, None, binding("b", "r", user_subject("jane")))

    def reach(path: str, verb: str = "get") -> bool:
        return authorizer.authorize(Attributes(JANE, verb, path=path)).allowed

    assert reach("/healthz")
    assert reach("/api/v1")
    assert not reach("/healthz/x")
    assert not reach("/metrics")
    assert not reach("/healthz", "post")


def test_masters_may_everything() -> None:
    root = User("root", groups=("system:masters",))
    assert may(Authorizer(), root, "delete", "nodes", name="n1")


def test_the_refusal_reads_as_upstreams() -> None:
    attrs = Attributes(JANE, "list", "apps", "v1", "deployments", "", "default")
    assert denied(attrs).message == (
        'deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" '
        'in the namespace "default"'
    )
    cluster = Attributes(JANE, "get", "", "v1", "nodes", "", "", "n1")
    assert denied(cluster).message == (
        'nodes "n1" is forbidden: User "jane" cannot get resource "nodes" in API group "" at the cluster scope'
    )
    assert denied(Attributes(JANE, "get", path="/metrics")).message == (
        'forbidden: User "jane" cannot get path "/metrics"'
    )
