"""What mutating admission policies make of objects."""

from __future__ import annotations

from typing import Any

import pytest

from machinery import cel
from machinery.api import kinds
from services.apiserver.admission.mutations import MutationFailed, merged, patched
from services.apiserver.schema import cel_objects, definitions

DEPLOYMENT = definitions.node_for(kinds.DEPLOYMENT)


def evaluated(expression: str, **values: Any) -> Any:
    names = tuple(values)
    return cel.compile(cel_objects.as_maps(expression), names or ("object",)).evaluate(values or {"object": {}})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("Object{spec: Object.spec{replicas: 3}}", {"spec": {"replicas": 3}}),
        ('Object{metadata: Object.metadata{annotations: {"a": "b"}}}', {"metadata": {"annotations": {"a": "b"}}}),
        ('[JSONPatch{op: "add", path: "/a", value: 1}]', [{"op": "add", "path": "/a", "value": 1}]),
        ('Object{ // replicas: 1\n  spec: Object . spec {replicas: true ? 1 : 2} }', {"spec": {"replicas": 1}}),
        ('Object{spec: Object.spec{template: Object.spec.template{}}}', {"spec": {"template": {}}}),
        ('{"Object{a: 1}": [1].map(x, Object.x{y: x})}', {"Object{a: 1}": [{"y": 1}]}),
        ("Object{spec: Object.spec{__namespace__: 1, a__dash__b: 2}}", {"spec": {"namespace": 1, "a-b": 2}}),
        ("Object{?spec: optional.of(1), ?x: optional.none()}", {"spec": 1}),
        ('"/metadata/labels/" + jsonpatch.escapeKey("a/b~c")', "/metadata/labels/a~1b~0c"),
        ("Object{}", {}),
    ],
)  # fmt: skip
def test_typed_objects_are_maps(expression: str, value: Any) -> None:
    assert evaluated(expression) == value


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


def deployment(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "d"}, "spec": {"replicas": 1, "template": {"spec": {"containers": list(containers)}}}}


def test_a_configuration_is_merged_as_apply_merges() -> None:
    before = deployment(container("a", image="x"), container("b", image="y"))
    sidecar = container("b", env=[{"name": "E", "value": "1"}])
    after = merged(DEPLOYMENT, before, {"spec": {"template": {"spec": {"containers": [sidecar]}}}})
    assert after["spec"]["template"]["spec"]["containers"] == [container("a", image="x"), {**sidecar, "image": "y"}]
    assert before == deployment(container("a", image="x"), container("b", image="y"))


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ({"spec": {"replica": 3}}, "no such field: .spec.replica"),
        ({"spec": {"selector": {"matchLabels": {"a": "b"}}}}, "may not mutate atomic arrays, maps or structs"),
        ([], "must evaluate to an Object"),
    ],
)
def test_configurations_that_cannot_be_merged(configuration: Any, why: str) -> None:
    with pytest.raises(MutationFailed, match=why):
        merged(DEPLOYMENT, deployment(), configuration)


def test_json_patches_are_applied_to_a_copy() -> None:
    before = deployment()
    assert patched(before, [{"op": "replace", "path": "/spec/replicas", "value": 5}])["spec"]["replicas"] == 5
    assert before == deployment()
    assert patched(before, [{"op": "test", "path": "/spec/replicas", "value": 9}]) is before
    for wrong in ({}, [{"op": "remove", "path": "/spec/none"}], [{"op": "remove", "path": ""}]):
        with pytest.raises(MutationFailed):
            patched(before, wrong)
