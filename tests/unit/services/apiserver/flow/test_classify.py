"""Which flow a request belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from services.apiserver.flow import standard
from services.apiserver.flow.classify import Asked, first_match, in_order, matches
from services.apiserver.request import User

EVERYBODY = "system:authenticated"


def asked(name: str, *groups: str, verb: str = "get", resource: str = "pods", **more: str) -> Asked:
    user = User(name, groups=(*groups, EVERYBODY))
    return Asked(user, verb, bool(resource), resource=resource, **more)


LEASES = {"group": "coordination.k8s.io", "resource": "leases", "namespace": "a"}
NOBODY = User("system:anonymous", groups=("system:unauthenticated",))
NODE = ("system:node:n1", "system:nodes")
ACCOUNT = "system:serviceaccount:kube-system:dns"


@pytest.mark.parametrize(
    ("request_", "schema"),
    [
        (asked("root", "system:masters"), "exempt"),
        (asked("jane", resource="", path="/livez"), "probes"),
        (asked("jane", resource="", path="/livez/ping"), "global-default"),
        (asked(*NODE, verb="patch", resource="nodes", subresource="status"), "system-node-high"),
        (asked(*NODE, verb="update", **LEASES), "system-node-high"),
        (asked(*NODE, namespace="default"), "system-nodes"),
        (asked("system:kube-scheduler", verb="update", **LEASES), "system-leader-election"),
        (asked("system:kube-scheduler", namespace="default"), "kube-scheduler"),
        (asked("system:kube-controller-manager"), "kube-controller-manager"),
        (asked(ACCOUNT, "system:serviceaccounts", namespace="a"), "kube-system-service-accounts"),
        (asked("system:serviceaccount:a:b", "system:serviceaccounts"), "service-accounts"),
        (asked("system:serviceaccount:kube-system2:b", "system:serviceaccounts"), "service-accounts"),
        (asked("jane"), "global-default"),
        (Asked(NOBODY, "get", True, resource="pods"), "global-default"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everybody_has_the_flow_that_upstream_gives_them(request_: Asked, schema: str) -> None:
    found = first_match(in_order(standard.schemas()), request_)
    assert found is not None
    assert found["metadata"]["name"] == schema


def one(**rule: Any) -> dict[str, Any]:
    whole = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], **rule}
    subjects = [{"kind": "User", "user": {"name": "*"}}]
    return {"metadata": {"name": "x"}, "spec": {"rules": [{"subjects": subjects, "resourceRules": [whole]}]}}


def test_a_rule_looks_at_namespaces_subresources_and_scope() -> None:
    assert matches(one(namespaces=["a"]), asked("j", namespace="a"))
    assert not matches(one(namespaces=["a"]), asked("j", namespace="b"))
    assert not matches(one(), asked("j")), "a rule without clusterScope is not about what has no namespace"
    assert matches(one(namespaces=[], clusterScope=True), asked("j"))
    assert not matches(one(resources=["pods"]), asked("j", namespace="a", subresource="status"))
    assert matches(one(resources=["pods/status"]), asked("j", namespace="a", subresource="status"))
    assert not matches(one(), asked("j", resource="", path="/version"))
