"""ValidatingAdmissionPolicy and the authorizer; what admission may not change."""

from __future__ import annotations

from typing import Any

import pytest

from machinery.api import errors
from services.apiserver.request import User
from tests.support.apiserver_core import CoreClient

GROUP = "admissionregistration.k8s.io"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
JANE = User("jane", groups=("system:authenticated",))


async def bind(core: Any, kind: str, name: str, **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [RULE]}, **spec}}
    await core.create(f"{kind}admissionpolicies", body, group=GROUP)
    bound: dict[str, Any] = {"metadata": {"name": name}, "spec": {"policyName": name}}
    if kind == "validating":
        bound["spec"]["validationActions"] = ["Deny"]
    await core.create(f"{kind}admissionpolicybindings", bound, group=GROUP)


async def allow(core: Any, verb: str) -> None:
    """Let jane do this to ConfigMaps."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": [verb]}]
    await core.create("clusterroles", {"metadata": {"name": verb}, "rules": rules}, group=group)
    bound = {
        "metadata": {"name": verb},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": verb},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "jane"}],
    }
    await core.create("clusterrolebindings", bound, group=group)


async def test_an_expression_asks_what_the_user_may_do(core: Any) -> None:
    expression = "authorizer.group('').resource('configmaps').namespace('default').check('publish').allowed()"
    await bind(core, "validating", "p", validations=[{"expression": expression, "message": "may not publish"}])
    await allow(core, "create")
    jane = CoreClient(core.core, JANE)
    with pytest.raises(errors.Invalid, match="may not publish"):
        await jane.create("configmaps", {"metadata": {"name": "a"}}, "default")
    await allow(core, "publish")
    await jane.create("configmaps", {"metadata": {"name": "a"}}, "default")


async def test_admission_can_move_nothing_to_another_namespace(core: Any) -> None:
    patch = "[JSONPatch{op: 'replace', path: '/metadata/namespace', value: 'kube-system'}]"
    await bind(
        core, "mutating", "p", reinvocationPolicy="Never",
        mutations=[{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    )  # fmt: skip
    with pytest.raises(errors.BadRequest, match="namespace of the provided object does not match"):
        await core.create("configmaps", {"metadata": {"name": "a"}}, "default")


async def test_admission_can_rename_nothing_that_exists(core: Any) -> None:
    await core.create("configmaps", {"metadata": {"name": "a"}}, "default")
    patch = "[JSONPatch{op: 'replace', path: '/metadata/name', value: 'b'}]"
    await bind(
        core, "mutating", "p", reinvocationPolicy="Never",
        mutations=[{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    )  # fmt: skip
    with pytest.raises(errors.Invalid, match=r"metadata.name: Invalid value: .*field is immutable"):
        await core.update("configmaps", {"metadata": {"name": "a"}, "data": {"x": "y"}}, "default")


async def test_what_a_policy_may_cost_is_limited(core: Any) -> None:
    words = {f"k{number}": "x" * 500 for number in range(60)}
    costly = "object.data.all(k, object.data.all(l, !(object.data[k] + object.data[l]).contains('y')))"
    await bind(core, "validating", "p", validations=[{"expression": costly}] * 60)
    await core.create("configmaps", {"metadata": {"name": "few"}, "data": {"a": "b"}}, "default")
    with pytest.raises(errors.Invalid, match="running out of cost budget, no further validation rules will be run"):
        await core.create("configmaps", {"metadata": {"name": "many"}, "data": words}, "default")


async def test_what_one_expression_may_cost_is_limited(core: Any) -> None:
    asked = " && ".join(["authorizer.group('').resource('pods').check('get').allowed()"] * 3)
    await bind(core, "validating", "p", validations=[{"expression": asked}])
    with pytest.raises(errors.Invalid, match="resulted in error: operation cancelled: actual cost limit exceeded"):
        await core.create("configmaps", {"metadata": {"name": "a"}}, "default")
