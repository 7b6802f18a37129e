"""What a ValidatingAdmissionPolicy's status says about the types of its expressions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

GROUP = "admissionregistration.k8s.io"
DEPLOYMENTS = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
BOATS = {"apiGroups": ["x.example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["boats"]}


async def checked(core: Any, rule: dict[str, Any], *validations: dict[str, str]) -> dict[str, Any]:
    """A policy's status once it was looked at."""
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": list(validations)}
    await core.create("validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec}, group=GROUP)
    async with asyncio.timeout(10):
        while True:
            policy = await core.get("validatingadmissionpolicies", "p", group=GROUP)
            if policy.get("status", {}).get("observedGeneration") == policy["metadata"]["generation"]:
                return policy["status"]
            await asyncio.sleep(0.01)


async def test_what_fits_its_type_has_no_warning(core: Any) -> None:
    expression = (
        "object.spec.replicas > 1 && object.metadata.namespace == object.metadata.__namespace__"
        " && object.spec.template.spec.containers.all(c, c.image.startsWith('a') && !has(c.resources.limits))"
        " && object.metadata.labels.exists(k, k == 'a') && (oldObject == null || variables.x == 1)"
        " && object.metadata.creationTimestamp < timestamp('2020-01-01T00:00:00Z') && params.any.thing == 2"
        " && object.spec.strategy.rollingUpdate.maxSurge == '1' && authorizer.path('/x').check('get').allowed()"
    )
    assert "expressionWarnings" not in (await checked(core, DEPLOYMENTS, {"expression": expression}))["typeChecking"]


async def test_what_does_not_fit_is_told_by_field_and_kind(core: Any) -> None:
    wrong = {"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.nope"}
    found = (await checked(core, DEPLOYMENTS, wrong))["typeChecking"]["expressionWarnings"]
    assert [one["fieldRef"] for one in found] == [
        "spec.validations[0].expression",
        "spec.validations[0].messageExpression",
    ]
    assert found[0]["warning"].startswith("apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:22: ")
    assert "found no matching overload for '_>_' applied to '(int, string)'" in found[0]["warning"]
    assert "undefined field 'nope'" in found[1]["warning"]
    assert found[1]["warning"].count("ERROR") == 1


async def test_custom_resources_are_checked_by_their_schema(core: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"sails": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"}
    spec = {"group": "x.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {"metadata": {"name": "boats.x.example.com"}, "spec": spec}
    await core.create("customresourcedefinitions", definition, group="apiextensions.k8s.io")
    async with asyncio.timeout(10):
        while core.core.registry.find("x.example.com", "v1", "boats") is None:  # noqa: ASYNC110  # as a client would
            await asyncio.sleep(0.01)
    expressions = ({"expression": "object.spec.sails == 'two'"}, {"expression": "object.metadata.name == 'a'"})
    found = (await checked(core, BOATS, *expressions))["typeChecking"]["expressionWarnings"]
    assert [one["fieldRef"] for one in found] == ["spec.validations[0].expression"]
    assert found[0]["warning"].startswith("x.example.com/v1, Kind=Boat: ")


@pytest.mark.parametrize("resources", [["*"], ["pods/status"], ["nothing"]])
async def test_wildcards_and_unknown_kinds_are_not_checked(core: Any, resources: list[str]) -> None:
    rule = {**DEPLOYMENTS, "resources": resources}
    assert "expressionWarnings" not in (await checked(core, rule, {"expression": "object.x"}))["typeChecking"]
