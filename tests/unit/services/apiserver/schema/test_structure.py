"""The compiled validator and the slow walk agree, and faults are worded as upstream words them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinery.api import errors, kinds
from services.apiserver.schema import definitions, intake
from services.apiserver.schema.structure import Sort, faults, is_sound

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "labels": {"app": "web"}, "annotations": {"a.b/c": "d"}},
    "spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "hostNetwork": True,
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "args": ["a", "b"],
                "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "readinessProbe": {"httpGet": {"port": "http", "scheme": "HTTPS"}, "periodSeconds": 3},
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            }
        ],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}],
    },
    "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in entries:
        found += places(below, (*path, key))
    return found


VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        70000,
        2**40,
        1.5,
        "",
        "x",
        "Ab",
        "UPPER_",
        "-a",
        "a" * 300,
        [],
        {},
        [1],
        {"a": 1},
        "http",
        "1Gi",
        ["x"],
        {"a": "b"},
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(places(POD)), VALUES, st.booleans())
def test_the_compiled_validator_and_the_walk_agree_on_any_mutated_pod(
    path: tuple[Any, ...], value: Any, drop: bool
) -> None:
    obj = copy.deepcopy(POD)
    holder: Any = obj
    for step in path[:-1]:
        holder = holder[step]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = copy.deepcopy(value)
    assert is_sound(kinds.POD, obj) == (not faults(kinds.POD, obj)), faults(kinds.POD, obj)


@pytest.mark.parametrize("kind", kinds.BUILTIN, ids=str)
def test_every_built_in_kind_compiles_and_accepts_an_object_of_nothing_but_its_identity(kind: kinds.Kind) -> None:
    assert definitions.node_for(kind) is not None, f"no definition of {kind}"
    obj = {"apiVersion": kind.api_version, "kind": kind.kind}
    assert is_sound(kind, obj) == (not faults(kind, obj))


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (
            kinds.DEPLOYMENT,
            {"spec": {"replicas": "3"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            kinds.DEPLOYMENT,
            {"spec": {"replicas": 3.0}},
            "json: cannot unmarshal number 3.0 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            kinds.POD,
            {"spec": {"containers": {"name": "a"}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            kinds.POD,
            {"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}},
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort"
            " of type int32",
        ),
        (
            kinds.POD,
            {"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}},
            "quantities must match the regular expression",
        ),
        (kinds.SECRET, {"data": {"a": "not base64"}}, "illegal base64 data at input byte 3"),
        (
            kinds.POD,
            {"metadata": {"labels": {"a": 1}}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            kinds.POD,
            {"metadata": []},
            "json: cannot unmarshal array into Go struct field Pod.metadata of type v1.ObjectMeta",
        ),
    ],
)
def test_a_body_that_is_not_its_kind_is_a_bad_request_in_the_decoders_words(
    kind: kinds.Kind, body: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        intake.take_in(kind, body)
    prefix = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    assert caught.value.message.startswith(prefix + message)


def body_with_unknown() -> dict[str, Any]:
    return {"foo": 1, "spec": {"bar": 2, "containers": [{"name": "a", "image": "b", "imagee": "c"}]}}


def test_unknown_fields_warn_one_by_one_and_are_dropped() -> None:
    body = body_with_unknown()
    assert intake.take_in(kinds.POD, body) == [
        'unknown field "foo"', 'unknown field "spec.bar"', 'unknown field "spec.containers[0].imagee"',
    ]  # fmt: skip
    assert body == {"spec": {"containers": [{"name": "a", "image": "b"}]}}
    assert intake.take_in(kinds.POD, body_with_unknown(), "Ignore") == []


def test_strict_refuses_unknown_fields_all_in_one_error() -> None:
    with pytest.raises(errors.BadRequest) as caught:
        intake.take_in(kinds.POD, body_with_unknown(), "Strict")
    assert caught.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "foo", '
        'unknown field "spec.bar", unknown field "spec.containers[0].imagee"'
    )


def test_nulls_are_dropped_as_go_reads_them() -> None:
    body = {
        "metadata": {"creationTimestamp": None, "labels": {"a": None}},
        "spec": {"containers": [{"name": "a", "args": [None]}]},
    }
    intake.take_in(kinds.POD, body, "Strict")
    assert body == {"metadata": {"labels": {"a": ""}}, "spec": {"containers": [{"name": "a", "args": [""]}]}}


def test_quantities_and_times_become_canonical_wherever_they_stand() -> None:
    body = {
        "metadata": {"creationTimestamp": "2026-01-01T01:00:00+01:00"},
        "spec": {
            "overhead": {"cpu": 0.5},
            "volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1024Mi"}}],
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1000m", "memory": 1024}}}],
        },
    }
    intake.take_in(kinds.POD, body)
    assert body["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert body["spec"]["overhead"] == {"cpu": "500m"}
    assert body["spec"]["volumes"][0]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert body["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1024"}


def test_micro_times_of_leases_keep_six_digits() -> None:
    body = {"spec": {"renewTime": "2026-01-01T00:00:00.5Z"}}
    intake.take_in(kinds.LEASE, body)
    assert body["spec"]["renewTime"] == "2026-01-01T00:00:00.500000Z"


def test_a_body_nested_without_end_is_refused_and_not_a_crash() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(errors.BadRequest):
        intake.take_in(kinds.POD, {"spec": deep, "metadata": {"labels": deep}}, "Strict")


def test_statuses_require_nothing() -> None:
    body = {"status": {"containerStatuses": [{"name": "a"}], "conditions": [{"type": "Ready"}]}}
    assert not [
        fault for fault in faults(kinds.POD, body) if fault.sort is Sort.VALUE and fault.field.startswith("status")
    ]


def test_keys_that_stood_twice_are_named_after_unknown_fields() -> None:
    with pytest.raises(errors.BadRequest) as caught:
        intake.take_in(kinds.DEPLOYMENT, {"spec": {"unknownField": "foo", "replicas": 3}}, "Strict", ["spec.replicas"])
    text = 'strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"'
    assert text in caught.value.message
    assert intake.take_in(kinds.DEPLOYMENT, {"spec": {"replicas": 3}}, "Warn", ["spec.replicas"]) == [
        'duplicate field "spec.replicas"'
    ]


def test_of_a_patched_object_only_what_the_patch_can_have_changed_is_read() -> None:
    def limits(cpu: str) -> dict[str, Any]:
        return {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}

    body = {"spec": limits("1000m"), "status": {"startTime": "2026-01-01T00:00:00.5Z"}}
    assert intake.take_in(kinds.POD, body, "Warn", (), {"status"}) == []
    # What is stored is canonical; here it is not, which shows that nobody looked.
    assert body == {"spec": limits("1000m"), "status": {"startTime": "2026-01-01T00:00:00Z"}}
    with pytest.raises(errors.BadRequest):
        intake.take_in(kinds.POD, {"spec": limits("1"), "status": "no object"}, "Warn", (), {"status"})


def test_unknown_fields_of_a_patch_are_named_and_dropped() -> None:
    body = {"spec": {"containers": []}, "status": {"hostIPs": None, "wrong": 1, "phase": "Running"}, "odd": 1}
    warnings = intake.take_in(kinds.POD, body, "Warn", (), {"status", "odd"})
    assert sorted(warnings) == ['unknown field "odd"', 'unknown field "status.wrong"']
    assert body == {"spec": {"containers": []}, "status": {"phase": "Running"}}


def test_a_time_at_the_top_of_a_patched_object_becomes_canonical() -> None:
    body = {"lastTimestamp": "2026-01-01T00:00:00.7Z", "reason": "R"}
    assert intake.take_in(kinds.EVENT, body, "Warn", (), {"lastTimestamp"}) == []
    assert body == {"lastTimestamp": "2026-01-01T00:00:00Z", "reason": "R"}
