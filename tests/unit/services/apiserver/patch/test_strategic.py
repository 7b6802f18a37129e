"""Strategic merge patch: which lists merge, every directive, and the order of what was merged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api import errors
from services.apiserver.patch import strategic
from services.apiserver.schema.definitions import node_named

DEPLOYMENT = node_named("io.k8s.api.apps.v1.Deployment")
POD = node_named("io.k8s.api.core.v1.Pod")
Obj = dict[str, Any]


def spec(**fields: Any) -> Obj:
    return {"spec": fields}


def containers(*named: Obj) -> Obj:
    return spec(containers=list(named))


def one(name: str, image: str = "i", **more: Any) -> Obj:
    return {"name": name, "image": image, **more}


CASES: list[tuple[str, Obj, Obj, Obj]] = [
    (
        "scalars replace, null removes",
        spec(nodeName="a", hostname="b"),
        spec(nodeName="c", hostname=None),
        spec(nodeName="c"),
    ),
    (
        "keyed lists merge by key",
        containers(one("a"), one("b")),
        containers(one("b", "new")),
        containers(one("a"), one("b", "new")),
    ),
    ("a new item comes first", containers(one("a")), containers(one("b")), containers(one("b"), one("a"))),
    (
        "an item is deleted by its key",
        containers(one("a"), one("b")),
        containers({"name": "a", "$patch": "delete"}),
        containers(one("b")),
    ),
    (
        "a whole list is replaced",
        containers(one("a"), one("b")),
        containers({"$patch": "replace"}, one("c")),
        containers(one("c")),
    ),
    (
        "an object is replaced",
        spec(nodeSelector={"a": "1", "b": "2"}),
        spec(nodeSelector={"$patch": "replace", "c": "3"}),
        spec(nodeSelector={"c": "3"}),
    ),
    (
        "an object is emptied",
        spec(nodeSelector={"a": "1"}),
        spec(nodeSelector={"$patch": "delete"}),
        spec(nodeSelector={}),
    ),
    (
        "merge is the default directive",
        spec(nodeSelector={"a": "1"}),
        spec(nodeSelector={"$patch": "merge", "b": "2"}),
        spec(nodeSelector={"a": "1", "b": "2"}),
    ),
    (
        "lists without a key are replaced",
        containers(one("a", args=["x", "y"])),
        containers({"name": "a", "args": ["z"]}),
        containers(one("a", args=["z"])),
    ),
    (
        "deep merging",
        containers(one("a", env=[{"name": "X", "value": "1"}])),
        containers({"name": "a", "env": [{"name": "Y", "value": "2"}]}),
        containers(one("a", env=[{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}])),
    ),
    (
        "ports merge by container port",
        containers(one("a", ports=[{"containerPort": 80}])),
        containers({"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}),
        containers(one("a", ports=[{"containerPort": 80, "name": "http"}, {"containerPort": 81}])),
    ),
    (
        "an order of elements",
        containers(one("a"), one("b")),
        {
            "spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                "containers": [one("c")],
            }
        },
        containers(one("c"), one("b"), one("a")),
    ),
    (
        "what only the server has keeps its place",
        containers(one("server"), one("a"), one("b")),
        {
            "spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "n"}],
            }
        },
        containers(one("server"), one("b"), one("a", "n")),
    ),
    (
        "a list of an object that was not there",
        {},
        containers(one("a"), {"name": "b", "$patch": "delete"}),
        containers(one("a")),
    ),
    (
        "directives leave no trace in new objects",
        {},
        spec(securityContext={"runAsUser": 1, "fsGroup": None}),
        spec(securityContext={"runAsUser": 1}),
    ),
]


@pytest.mark.parametrize(("doc", "patch", "result"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_pods(doc: Obj, patch: Obj, result: Obj) -> None:
    before, given_patch = copy.deepcopy(doc), copy.deepcopy(patch)
    assert strategic.apply(doc, patch, POD) == result
    assert doc == before
    assert patch == given_patch


def test_retain_keys_drops_what_a_union_no_longer_holds() -> None:
    live = spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})
    patch = spec(strategy={"$retainKeys": ["type"], "type": "Recreate"})
    assert strategic.apply(live, patch, DEPLOYMENT) == spec(strategy={"type": "Recreate"})


def test_volumes_keep_one_source() -> None:
    live = spec(volumes=[{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}])
    patch = spec(volumes=[{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}])
    assert strategic.apply(live, patch, POD) == spec(
        volumes=[{"name": "v", "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}]
    )


def test_finalizers_merge_and_are_deleted_one_by_one() -> None:
    live = {"metadata": {"finalizers": ["a", "b"]}}
    added = strategic.apply(live, {"metadata": {"finalizers": ["c", "a"]}}, POD)
    assert added == {"metadata": {"finalizers": ["c", "a", "b"]}}
    gone = strategic.apply(live, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, POD)
    assert gone == {"metadata": {"finalizers": ["b"]}}


@pytest.mark.parametrize(
    "patch",
    [
        spec(nodeSelector={"$patch": "shred"}),
        containers({"image": "no name"}),
        containers({"name": "a", "$patch": "shred"}),
        spec(containers=["a"]),
        {"spec": {"$setElementOrder/containers": ["a"], "containers": [one("a")]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
        spec(volumes=[{"name": "v", "$retainKeys": "name"}]),
        [],
        "x",
        None,
    ],
    ids=str,
)
def test_nonsense_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(errors.BadRequest):
        strategic.apply(containers(one("a")), patch, POD)


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(NAMES, NAMES, st.randoms(use_true_random=False))
def test_what_an_order_names_stands_in_that_order_and_nothing_is_lost(
    live: list[str], sent: list[str], rand: Any
) -> None:
    order = sorted({*sent, *[name for name in live if rand.random() < 0.5]}, key=lambda name: rand.random())
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": name} for name in order],
            "containers": [one(name, "new") for name in sent],
        }
    }
    result = [item["name"] for item in strategic.apply(containers(*map(one, live)), patch, POD)["spec"]["containers"]]
    assert sorted(result) == sorted({*live, *sent})
    assert [name for name in result if name in order] == [name for name in order if name in result]
    rest = [name for name in live if name not in order]
    assert [name for name in result if name not in order] == rest


@given(NAMES, NAMES)
def test_applying_twice_changes_nothing_more(live: list[str], sent: list[str]) -> None:
    patch = containers(*(one(name, "new") for name in sent))
    once = strategic.apply(containers(*map(one, live)), patch, POD)
    assert strategic.apply(once, patch, POD) == once


def test_the_merge_keys_come_from_the_definitions() -> None:
    fields = node_named("io.k8s.api.core.v1.PodSpec").fields
    assert fields["containers"].merge_key == "name"
    assert fields["hostAliases"].merge_key == "ip"
    assert "retainKeys" in fields["volumes"].strategies
