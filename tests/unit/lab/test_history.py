"""What changed from one version of an object to the next, and who changed it."""

import itertools
import json

import pytest

from lab.difference import Change, compared, difference
from lab.errors import LabError
from lab.history import rendered, split_target, versions
from protos.cutaway.v1.apiserver_pb2 import Version
from protos.cutaway.v1.object_pb2 import Object


def obj(revision, **fields):
    return {"metadata": {"name": "a", "uid": "1", "resourceVersion": str(revision)}, **fields}


def test_fields_are_named_by_path_and_items_by_their_name():
    old = obj(1, spec={"containers": [{"name": "web", "image": "web:1"}, {"name": "log", "image": "log:1"}]})
    new = obj(2, spec={"containers": [{"name": "log", "image": "log:1"}, {"name": "web", "image": "web:2"}]})
    assert difference(old, new) == (Change("spec.containers[web].image", "web:1", "web:2"),)


def test_items_without_a_name_are_told_apart_by_their_place():
    changes = difference(obj(1, spec={"args": ["a", "b"]}), obj(2, spec={"args": ["a", "c", "d"]}))
    assert changes == (Change("spec.args[1]", "b", "c"), Change("spec.args[2]", None, "d"))


def test_a_field_that_comes_or_goes_and_a_key_that_is_no_path():
    old, new = obj(1, data={"old": "1"}), obj(2, data={"app.io/new": "2"})
    assert {str(change) for change in difference(old, new)} == {
        '+ data["app.io/new"] = "2"',
        '- data.old (was "1")',
    }


def test_what_every_write_changes_is_left_out():
    old, new = obj(1), obj(2)
    new["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert difference(old, new) == ()


def test_what_a_secret_holds_is_not_shown():
    applied = "kubectl.kubernetes.io/last-applied-configuration"

    def secret(revision, value, **more):
        annotations = {applied: json.dumps({"data": {"password": value}})}
        made = obj(revision, kind="Secret", data={"password": value, **more})
        made["metadata"]["annotations"] = annotations
        return made

    bare = obj(1, kind="Secret", type="Opaque")
    steps = [bare, secret(2, "b2xk"), secret(3, "bmV3", **{"tls.key": "a2V5"})]
    shown = [str(change) for old, new in itertools.pairwise(steps) for change in difference(old, new)]
    assert shown == [
        "+ data = ***", "+ metadata.annotations = ***", '- type (was "Opaque")',
        "~ data.password: *** -> ***", '+ data["tls.key"] = ***',
        f'~ metadata.annotations["{applied}"]: *** -> ***',
    ]  # fmt: skip


def version(kind, state, user="", time=0.0):
    envelope = Object(revision=int(state["metadata"]["resourceVersion"]), json=json.dumps(state).encode())
    return Version(object=envelope, kind=kind, user=user, time=time)


def test_each_write_says_who_when_and_what():
    first = obj(1, spec={"replicas": 1})
    first["metadata"]["managedFields"] = [{"manager": "kubectl-create", "time": "2026-01-01T00:00:00Z"}]
    second = obj(2, spec={"replicas": 2})
    second["metadata"]["managedFields"] = [
        *first["metadata"]["managedFields"],
        {"manager": "kubectl-scale", "time": "2026-01-01T00:00:00Z"},
    ]
    gone = obj(3, spec={"replicas": 2})
    found = versions(
        [
            version(Version.DELETED, gone, "jane", 1767225602.5),
            version(Version.CHANGED, second, "joe", 1767225601),
            version(Version.CREATED, first, "joe", 1767225600),
            version(Version.DELETED, obj(0), "joe", 1767225599),
        ]
    )
    assert rendered(found) == [
        "       3  2026-01-01T00:00:02Z  jane  (deleted)",
        "       2  2026-01-01T00:00:01Z  joe, kubectl-scale  (1 field)",
        "          ~ spec.replicas: 1 -> 2",
        "       1  2026-01-01T00:00:00Z  joe, kubectl-create  (created)",
        "       0  2025-12-31T23:59:59Z  joe  (deleted)",
    ]


def test_what_components_say_about_an_object_can_be_told_from_what_was_asked_for():
    asked = obj(2, spec={"replicas": 2}, status={"replicas": 1})
    both = obj(3, spec={"replicas": 3}, status={"replicas": 2})
    told = obj(4, spec={"replicas": 3}, status={"replicas": 3})
    states = [(Version.DELETED, obj(5)), *((Version.CHANGED, state) for state in (told, both, asked))]
    found = versions([version(kind, state) for kind, state in [*states, (Version.CREATED, obj(1))]])
    assert [item.revision for item in found if item.only_status] == [4]


def test_where_what_was_before_is_not_retained_nothing_is_made_up():
    [found] = versions([version(Version.CHANGED, obj(2, spec={"replicas": 2}))])
    assert rendered([found]) == ["       2  -                     -  (changed; what was before is not retained)"]


@pytest.mark.parametrize("target", ["web", "/web", "pod/"])
def test_a_target_without_kind_and_name_is_refused(target):
    with pytest.raises(LabError, match="names no object"):
        split_target(target)


def test_two_states_are_compared_by_object():
    def state(**objects):
        return {name: json.dumps(value).encode() for name, value in objects.items()}

    old = state(same=obj(1, k=1), gone=obj(2), changed=obj(3, k=1), touched=obj(4))
    new = state(same=obj(1, k=1), come=obj(7), changed=obj(5, k=2), touched=obj(6))
    assert [str(found) for found in compared(old, new)] == ["~ changed\n    ~ k: 1 -> 2", "+ come", "- gone"]
