"""MutatingAdmissionPolicies over real writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.apiserver_process import ApiServerProcess

GROUP = "admissionregistration.k8s.io/v1"


def policy(name: str, namespace: str, *mutations: dict[str, Any], **spec: Any) -> list[dict[str, Any]]:
    """A policy for ConfigMaps of one namespace, and its binding."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    own = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return [
        {
            "apiVersion": GROUP,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": own},
                "reinvocationPolicy": "Never",
                "mutations": list(mutations),
                **spec,
            },
        },
        {
            "apiVersion": GROUP,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        },
    ]


def apply_configuration(expression: str) -> dict[str, Any]:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def json_patch(expression: str) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


@pytest.fixture
def clean(server: ApiServerProcess) -> Iterator[None]:
    yield
    server.kubectl("delete", "mutatingadmissionpolicies,mutatingadmissionpolicybindings", "--all")


def create(server: ApiServerProcess, objects: list[dict[str, Any]]) -> None:
    for obj in objects:
        server.kubectl("create", "-f", "-", stdin=json.dumps(obj))


def test_policies_change_what_is_written(server: ApiServerProcess, namespace: str, clean: None) -> None:
    labels = 'Object{metadata: Object.metadata{labels: {"team": variables.team}}}'
    where = '"/metadata/labels/" + jsonpatch.escapeKey("example.com/b")'
    operations = f'[JSONPatch{{op: "add", path: {where}, value: object.metadata.labels.team}}]'
    team = {"name": "team", "expression": "namespaceObject.metadata.name + '-team'"}
    conditions = [{"name": "not-skipped", "expression": "!has(object.data.skip)"}]
    spec: dict[str, Any] = {"variables": [team], "matchConditions": conditions}
    create(server, policy("one", namespace, apply_configuration(labels), json_patch(operations), **spec))
    server.kubectl("create", "configmap", "a", "--from-literal=x=1", "-n", namespace)
    made = server.json("get", "configmap", "a", "-n", namespace)
    assert made["metadata"]["labels"] == {"team": f"{namespace}-team", "example.com/b": f"{namespace}-team"}
    server.kubectl("create", "configmap", "b", "--from-literal=skip=1", "-n", namespace)
    assert "labels" not in server.json("get", "configmap", "b", "-n", namespace)["metadata"]
    # Others' namespaces are not its business.
    server.kubectl("create", "configmap", "a", "--from-literal=x=1", "-n", "default")
    assert "labels" not in server.json("get", "configmap", "a", "-n", "default")["metadata"]


def test_a_policy_that_fails_refuses_or_is_passed_over_as_it_says(
    server: ApiServerProcess, namespace: str, clean: None
) -> None:
    wrong = apply_configuration("Object{metadata: Object.metadata{lables: {}}}")
    create(server, policy("failing", namespace, wrong))
    refused = server.kubectl("create", "configmap", "a", "-n", namespace, check=False)
    assert "policy 'failing' with binding 'failing' denied request: no such field: .metadata.lables" in refused.stderr
    change = '{"spec":{"failurePolicy":"Ignore"}}'
    server.kubectl("patch", "mutatingadmissionpolicy", "failing", "--type=merge", "-p", change)
    server.kubectl("create", "configmap", "a", "-n", namespace)


def test_a_policy_is_evaluated_again_if_a_later_one_changed_the_object(
    server: ApiServerProcess, namespace: str, clean: None
) -> None:
    count = (
        'Object{metadata: Object.metadata{annotations: {"labels": '
        "string(has(object.metadata.labels) ? size(object.metadata.labels) : 0)}}}"
    )
    create(server, policy("a-counts", namespace, apply_configuration(count), reinvocationPolicy="IfNeeded"))
    create(
        server,
        policy("b-labels", namespace, apply_configuration('Object{metadata: Object.metadata{labels: {"x": "y"}}}')),
    )
    server.kubectl("create", "configmap", "a", "-n", namespace)
    assert server.json("get", "configmap", "a", "-n", namespace)["metadata"]["annotations"] == {"labels": "1"}
