"""MutatingAdmissionPolicy in a whole apiserver core: what is changed, in which order, and what refuses a write."""

from typing import Any

import pytest

from machinery.api import errors

GROUP = "admissionregistration.k8s.io"
CONFIG_MAPS = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["configmaps"],
}


def merge(expression: str) -> dict[str, Any]:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patch(expression: str) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def bind(core, name, *mutations, rule=CONFIG_MAPS, binding=None, **spec):
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "mutations": list(mutations),
        "reinvocationPolicy": "Never",
    }
    await core.create(
        "mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": {**policy, **spec}}, group=GROUP
    )
    bound = {"metadata": {"name": name}, "spec": {"policyName": name, **(binding or {})}}
    await core.create("mutatingadmissionpolicybindings", bound, group=GROUP)


async def made(core, name="x", **fields):
    return await core.create("configmaps", {"metadata": {"name": name}, **fields}, "default")


async def test_a_part_is_merged_in_and_the_rest_stays(core):
    await bind(core, "p", merge("Object{metadata: Object.metadata{labels: {'seen': object.metadata.name}}}"))
    result = await made(core, data={"a": "1"})
    assert result["metadata"]["labels"] == {"seen": "x"}
    assert result["data"] == {"a": "1"}


async def test_items_of_keyed_lists_are_merged_by_their_key(core):
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    expression = (
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"
        "containers: [Object.spec.template.spec.containers{name: 'side', image: 'proxy'}]}}}}"
    )
    await bind(core, "p", merge(expression), rule=rule)
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    result = await core.create("deployments", {"metadata": {"name": "d"}, "spec": spec}, "default", "apps")
    containers = result["spec"]["template"]["spec"]["containers"]
    assert {one["name"]: one["image"] for one in containers} == {"main": "i", "side": "proxy"}
    # What was added is completed like what was sent.
    assert {one["terminationMessagePolicy"] for one in containers} == {"File"}


async def test_mutations_and_policies_follow_each_other(core):
    count = "[JSONPatch{op: 'replace', path: '/data/n', value: string(int(object.data.n) * 10 + %d)}]"
    await bind(core, "b", patch(count % 3))
    await bind(core, "a", patch(count % 1), patch(count % 2))
    assert (await made(core, data={"n": "0"}))["data"] == {"n": "123"}


async def test_a_policy_that_wants_it_sees_what_a_later_one_changed(core):
    mirror = "Object{data: {'mirror': object.data.n}}"
    await bind(core, "a", merge(mirror), reinvocationPolicy="IfNeeded")
    await bind(core, "b", merge("Object{data: {'n': '2'}}"))
    assert (await made(core, data={"n": "1"}))["data"] == {"n": "2", "mirror": "2"}


async def test_conditions_variables_and_parameters(core):
    await core.create("configmaps", {"metadata": {"name": "params"}, "data": {"team": "blue"}}, "default")
    await bind(
        core,
        "p",
        merge("Object{data: {'team': variables.team}}"),
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        variables=[{"name": "team", "expression": "params.data.team"}],
        matchConditions=[{"name": "wanted", "expression": "object.metadata.name.startsWith('w')"}],
        binding={"paramRef": {"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"}},
    )
    assert (await made(core, "with", data={}))["data"] == {"team": "blue"}
    assert "data" not in await made(core, "other")


async def test_a_failed_test_of_a_patch_changes_nothing_and_refuses_nothing(core):
    await bind(
        core,
        "p",
        patch("[JSONPatch{op: 'test', path: '/data/a', value: 'no'}, JSONPatch{op: 'remove', path: '/data/a'}]"),
    )
    assert (await made(core, data={"a": "1"}))["data"] == {"a": "1"}


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (merge("Object{data: {'a': object.data.missing}}"), "no such key: missing"),
        (merge("Object{spec: Object.spec{x: 1}}"), r"no such field: \.spec"),
        (patch("[JSONPatch{op: 'remove', path: '/data/missing'}]"), "JSON Patch: "),
    ],
)
async def test_what_fails_refuses_the_write_unless_it_is_to_be_ignored(core, mutation, why):
    await bind(core, "p", mutation)
    with pytest.raises(errors.Invalid, match=f"policy 'p' with binding 'p' denied request: .*{why}"):
        await made(core, data={"a": "1"})
    await core.patch("mutatingadmissionpolicies", "p", {"spec": {"failurePolicy": "Ignore"}}, group=GROUP)
    assert (await made(core, data={"a": "1"}))["data"] == {"a": "1"}


async def test_what_can_only_be_replaced_as_a_whole_is_not_merged(core):
    rule = {**CONFIG_MAPS, "resources": ["services"]}
    await bind(core, "p", merge("Object{spec: Object.spec{externalIPs: ['10.0.0.1']}}"), rule=rule)
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    with pytest.raises(errors.Invalid, match=r"may not mutate atomic arrays, maps or structs: \.spec\.externalIPs"):
        await core.create("services", service, "default")


@pytest.mark.parametrize(
    ("mutation", "field", "why"),
    [
        (merge("Object{spec: Object.wrong{}}"), "spec.mutations[0].applyConfiguration.expression", "type mismatch"),
        (merge("1 +"), "spec.mutations[0].applyConfiguration.expression", "compilation failed"),
        (merge("'text'"), "spec.mutations[0].applyConfiguration.expression", "must evaluate to Object"),
        (patch("'text'"), "spec.mutations[0].jsonPatch.expression", "must evaluate to list(JSONPatch)"),
        ({"patchType": "JSONPatch"}, "spec.mutations[0].jsonPatch.expression", "Required value"),
        ({"patchType": "Merge"}, "spec.mutations[0].patchType", "Unsupported value"),
    ],
)
async def test_a_policy_that_can_not_work_is_refused(core, mutation, field, why):
    with pytest.raises(errors.Invalid) as refused:
        await bind(core, "p", mutation)
    assert any(cause.field == field and why in cause.message for cause in refused.value.causes), refused.value.causes
