"""decode(encode(object)) is the object: for generated objects of every kind, and for the shapes that have a twist."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api import errors
from services.apiserver.rest import protobuf
from services.apiserver.rest.protobuf import scalars, table

# Values that are their own canonical form, so that a round trip gives them back as they were.
TEXT = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12)
JSON = st.recursive(
    st.booleans() | st.integers(-(1 << 53), 1 << 53) | TEXT,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(TEXT, below, max_size=2),
    max_leaves=4,
)
MOMENTS = st.datetimes(min_value=datetime.datetime(1, 1, 1, 0, 0, 2))  # noqa: DTZ001 - the zone is written behind it
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "bool": st.just(True),
    "int32": st.integers(-(1 << 31), (1 << 31) - 1).filter(bool),
    "int64": st.integers(-(1 << 63), (1 << 63) - 1).filter(bool),
    "double": st.floats(allow_nan=False, allow_infinity=False).filter(bool),
    "bytes": st.binary(min_size=1, max_size=9).map(lambda content: base64.b64encode(content).decode()),
    "strings": st.lists(TEXT, max_size=2),
    "meta/v1.Time": MOMENTS.map(lambda moment: moment.isoformat(timespec="seconds") + "Z"),
    "meta/v1.MicroTime": MOMENTS.map(lambda moment: moment.isoformat(timespec="microseconds") + "Z"),
    "resource.Quantity": st.sampled_from(["100m", "1Gi", "0", "-3", "1500k"]),
    "intstr.IntOrString": st.integers(-(1 << 31), (1 << 31) - 1) | TEXT,
    "meta/v1.FieldsV1": st.dictionaries(TEXT, JSON, max_size=2),
    "runtime.RawExtension": st.dictionaries(TEXT, JSON, max_size=2),
    "apiextensions/v1.JSON": JSON,
}
OTHERWISE: dict[str, st.SearchStrategy[Any]] = {
    "apiextensions/v1.JSONSchemaPropsOrArray": st.just([{"type": "string"}]),
    "apiextensions/v1.JSONSchemaPropsOrBool": st.booleans(),
    "apiextensions/v1.JSONSchemaPropsOrStringArray": st.lists(TEXT, min_size=1, max_size=2),
}
SCHEMA_MESSAGE = "apiextensions/v1.JSONSchemaProps"
KINDS = [
    (api_version, name.rpartition(".")[2])
    for api_version, package in table.packages().items()
    for name in table.message_names()
    if name.rpartition(".")[0] == package and any(field.name == "metadata" for field in table.message(name).fields)
]


@st.composite
def objects(draw: st.DrawFn, message: table.Message, depth: int = 0) -> dict[str, Any]:
    """An object with some of a message's fields, less of them the deeper it is."""
    out: dict[str, Any] = {}
    fields = list(message.fields)
    chosen = draw(st.sets(st.sampled_from(fields), max_size=4 if depth < 4 else 1)) if fields else ()
    for field in sorted(chosen, key=lambda one: one.number):
        if depth > 7 and field.type not in VALUES:
            continue
        one = _values(field.type, depth)
        if not field.name:
            out.update(draw(one))
        elif field.container == "[]":
            out[field.name] = draw(st.lists(one, min_size=1, max_size=2))
        elif field.container == "{}":
            out[field.name] = draw(st.dictionaries(TEXT, one, min_size=1, max_size=2))
        else:
            out[field.name] = draw(one)
    return out


def _values(kind: str, depth: int) -> st.SearchStrategy[Any]:
    if kind in VALUES:
        return VALUES[kind]
    if kind in OTHERWISE:
        return OTHERWISE[kind] | objects(table.message(SCHEMA_MESSAGE), depth + 1)
    return objects(table.message(kind), depth + 1)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_object_of_any_kind_survives_the_round_trip(data: st.DataObject) -> None:
    api_version, kind = data.draw(st.sampled_from(KINDS))
    message = table.message_of(api_version, kind)
    assert message is not None
    obj = {"apiVersion": api_version, "kind": kind, **data.draw(objects(message))}

    assert protobuf.decode(protobuf.encode(obj)) == obj


def test_every_special_type_is_generated() -> None:
    assert set(scalars.SPECIAL) <= set(VALUES)
    assert set(scalars.SCHEMA_OR_ELSE) == set(OTHERWISE)


def _round(obj: dict[str, Any]) -> Any:
    return protobuf.decode(protobuf.encode(obj))


POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "labels": {"a": "b", "empty": ""},
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}}],
    },
    "spec": {
        "containers": [
            {
                "name": "web",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": False}}}],
                "securityContext": {"runAsUser": 0},
            }
        ],
        "ephemeralContainers": [{"name": "debug", "image": "busybox", "targetContainerName": "web"}],
        "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 0}}],
        "securityContext": {"supplementalGroups": [0, 1, -1]},
    },
    "status": {},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "default": {"size": 1},
    "enum": ["a", 1, None],
    "properties": {
        "size": {"type": "integer", "minimum": 0.0, "x-kubernetes-int-or-string": True},
        "rest": {"type": "object", "additionalProperties": True},
        "none": {"type": "object", "additionalProperties": False},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}, "x-kubernetes-preserve-unknown-fields": True},
    },
    "x-kubernetes-validations": [{"rule": "self.size > 0"}],
}
OBJECTS: dict[str, dict[str, Any]] = {
    "pod": POD,
    "role with rules": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
    },
    "persistent volume": {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "spec": {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}, "accessModes": ["ReadWriteOnce"]},
    },
    "webhook, with rules in rules": {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"resourceNames": ["n"], "operations": ["CREATE"], "apiGroups": ["apps"], "resources": ["*"]}
                ]
            }
        },
    },
    "lease": {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "spec": {"renewTime": "2026-01-02T03:04:05.000060Z", "leaseTransitions": 0},
    },
    "extra values": {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "t"},
        "status": {"user": {"extra": {"scopes": ["a", "b"], "none": []}}},
    },
    "custom resource definition": {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "crons.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "crons", "kind": "Cron"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": False,
                    "schema": {"openAPIV3Schema": SCHEMA},
                    "subresources": {"status": {}},
                }
            ],
        },
    },
    "delete options of a group": {
        "apiVersion": "apps/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"},
        "propagationPolicy": "Foreground",
    },
    "status": errors.not_found("apps", "deployments", "web").to_status(),
    "list": {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": [{"spec": {}}]},
    "eviction": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}, "deleteOptions": {}},
    "scale": {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 3}},
    "binding": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "node"}},
    "revision": {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {"spec": {"$patch": 1}}, "revision": 2},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_shapes_with_a_twist_survive_the_round_trip(name: str) -> None:
    assert _round(OBJECTS[name]) == OBJECTS[name]


def test_nulls_and_fields_without_a_number_are_left_out() -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "creationTimestamp": None}, "new": 1}

    assert _round(config) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}


def test_a_zero_of_a_field_that_json_omits_is_not_set() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "paused": False}}

    assert _round(deployment)["spec"] == {"replicas": 0}


def test_times_with_an_offset_are_given_in_utc() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "status": {"startTime": "2026-01-02T03:04:05.7+01:00"}}

    assert _round(pod)["status"]["startTime"] == "2026-01-02T02:04:05Z"


def test_the_same_object_gives_the_same_bytes() -> None:
    turned = {**POD, "metadata": dict(reversed(POD["metadata"].items()))}

    assert protobuf.encode(turned) == protobuf.encode(POD)


def test_custom_resources_have_no_protobuf_form() -> None:
    with pytest.raises(errors.NotAcceptable, match=r"example.com/v1 Cron has no protobuf form"):
        protobuf.encode({"apiVersion": "example.com/v1", "kind": "Cron"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"replicas": "3"}, r"spec.replicas: '3' is not a whole number"),
        ({"replicas": 1 << 31}, r"spec.replicas: 2147483648 does not fit int32"),
        ({"paused": 1}, r"spec.paused: 1 is not true or false"),
        ({"template": {"spec": {"containers": {}}}}, r"spec.template.spec.containers: dict where a list is expected"),
        (
            {"template": {"spec": {"nodeSelector": []}}},
            r"spec.template.spec.nodeSelector: list where a map is expected",
        ),
        ({"template": "x"}, r"spec.template: str where an object is expected"),
        ({"template": {"metadata": {"creationTimestamp": "now"}}}, r"spec.template.metadata.creationTimestamp: "),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_path(spec: Any, message: str) -> None:
    with pytest.raises(errors.InternalError, match=message):
        protobuf.encode({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec})
