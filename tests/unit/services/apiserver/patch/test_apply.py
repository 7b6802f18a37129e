"""Server-side apply and ownership, as structured-merge-diff and kubectl's users know them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api import errors, kinds
from services.apiserver.patch import apply as server_side
from services.apiserver.patch import field_set, managed_fields, typed
from services.apiserver.schema import defaults
from services.apiserver.schema.custom import CustomSchema
from services.apiserver.schema.definitions import node_named

Obj = dict[str, Any]

DEPLOYMENT = node_named("io.k8s.api.apps.v1.Deployment")
POD = node_named("io.k8s.api.core.v1.Pod")
CONFIG_MAP = node_named("io.k8s.api.core.v1.ConfigMap")
NOW = "2026-11-23T10:00:00Z"
LATER = "2026-11-23T11:00:00Z"


def deployment(image: str = "nginx:1", **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image, "ports": [{"containerPort": 80}]}]},
            },
            **spec,
        },
    }


def created(obj: Obj, manager: str = "kubectl-client-side-apply", node: Any = DEPLOYMENT) -> Obj:
    obj = copy.deepcopy(obj)
    obj["metadata"]["managedFields"] = managed_fields.record_update(
        node, None, obj, manager=manager, api_version="apps/v1", now=NOW
    )
    return obj


def applied(live: Obj | None, config: Obj, manager: str = "me", *, force: bool = False, node: Any = DEPLOYMENT) -> Obj:
    result = server_side.apply(node, live, config, manager=manager, api_version="apps/v1", now=LATER, force=force)
    return result.obj


def updated(live: Obj, change: Obj, manager: str = "controller", subresource: str = "", node: Any = DEPLOYMENT) -> Obj:
    new = copy.deepcopy(live)
    for name, value in change.items():
        new[name] = {**new.get(name, {}), **value} if isinstance(value, dict) else value
    new["metadata"] = {**new["metadata"]}
    new["metadata"]["managedFields"] = managed_fields.record_update(
        node, live, new, manager=manager, api_version="apps/v1", now=LATER, subresource=subresource
    )
    return new


def owners(obj: Obj) -> dict[str, Obj]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", [])}


def test_a_create_records_what_upstream_records() -> None:
    live = defaults.apply_defaults(kinds.DEPLOYMENT, deployment(replicas=3))
    (entry,) = created(live, "kubectl-create")["metadata"]["managedFields"]
    assert entry == {
        "manager": "kubectl-create",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": NOW,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:progressDeadlineSeconds": {},
                "f:replicas": {},
                "f:revisionHistoryLimit": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {
                            'k:{"name":"web"}': {
                                ".": {},
                                "f:image": {},
                                "f:imagePullPolicy": {},
                                "f:name": {},
                                "f:ports": {
                                    ".": {},
                                    'k:{"containerPort":80,"protocol":"TCP"}': {
                                        ".": {},
                                        "f:containerPort": {},
                                        "f:protocol": {},
                                    },
                                },
                                "f:resources": {},
                                "f:terminationMessagePath": {},
                                "f:terminationMessagePolicy": {},
                            }
                        },
                        "f:dnsPolicy": {},
                        "f:restartPolicy": {},
                        "f:schedulerName": {},
                        "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {},
                    },
                },
            },
        },
    }


def test_an_apply_that_creates_owns_what_it_names() -> None:
    live = applied(None, deployment())
    (entry,) = live["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["time"]) == ("me", "Apply", LATER)
    containers = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert containers == {
        'k:{"name":"web"}': {
            ".": {}, "f:image": {}, "f:name": {},
            "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
        }
    }  # fmt: skip
    assert entry["fieldsV1"]["f:metadata"] == {"f:labels": {"f:app": {}}}


def test_one_conflict_is_named_in_one_line() -> None:
    live = created(deployment(replicas=3))
    with pytest.raises(errors.Conflict) as caught:
        applied(live, deployment(replicas=5))
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    )
    (cause,) = caught.value.causes
    assert cause.to_dict() == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
        "field": ".spec.replicas",
    }


def test_several_conflicts_are_listed_by_manager() -> None:
    live = created(deployment(replicas=3))
    with pytest.raises(errors.Conflict) as caught:
        applied(live, deployment("nginx:2", replicas=5))
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using apps/v1:\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="web"].image'
    )


def test_an_appliers_conflict_is_named_without_a_version() -> None:
    live = applied(None, deployment(replicas=1), "first")
    with pytest.raises(errors.Conflict, match=r'conflict with "first": \.spec\.replicas'):
        applied(live, deployment(replicas=2), "second")


def test_the_same_value_is_shared_and_not_a_conflict() -> None:
    live = applied(applied(None, deployment(replicas=1), "first"), deployment(replicas=1), "second")
    assert all("f:replicas" in fields["f:spec"] for fields in owners(live).values())


def test_force_takes_the_field_from_its_owner() -> None:
    live = applied(created(deployment(replicas=3)), deployment(replicas=5), force=True)
    assert live["spec"]["replicas"] == 5
    assert "f:replicas" not in owners(live)["kubectl-client-side-apply"]["f:spec"]
    assert "f:replicas" in owners(live)["me"]["f:spec"]


def test_a_dropped_field_is_removed_if_nobody_else_owns_it() -> None:
    live = applied(applied(None, deployment(replicas=3)), deployment())
    assert "replicas" not in live["spec"]
    both = applied(applied(None, deployment(replicas=3)), deployment(replicas=3), "other")
    kept = applied(both, deployment())
    assert kept["spec"]["replicas"] == 3
    assert "f:replicas" not in owners(kept)["me"]["f:spec"]


def test_a_dropped_container_goes_with_all_that_was_defaulted_in_it() -> None:
    config = deployment()
    config["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s"})
    live = defaults.apply_defaults(kinds.DEPLOYMENT, applied(None, config))
    after = applied(live, deployment())
    assert [one["name"] for one in after["spec"]["template"]["spec"]["containers"]] == ["web"]


def test_a_container_stays_while_somebody_owns_something_in_it() -> None:
    config = deployment()
    config["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s"})
    live = applied(None, config)
    injector = deployment()
    del injector["spec"]["selector"], injector["metadata"]["labels"]
    injector["spec"]["template"] = {"spec": {"containers": [{"name": "side", "command": ["run"]}]}}
    live = applied(live, injector, "injector")
    after = applied(live, deployment())
    assert after["spec"]["template"]["spec"]["containers"][1] == {"name": "side", "command": ["run"]}


def test_another_writers_labels_survive_an_apply() -> None:
    live = applied(None, deployment())
    live = updated(live, {"metadata": {"labels": {"app": "web", "team": "x"}}})
    after = applied(live, deployment(replicas=2))
    assert after["metadata"]["labels"] == {"app": "web", "team": "x"}


def test_an_apply_that_changes_nothing_is_nothing() -> None:
    live = applied(None, deployment())
    result = server_side.apply(DEPLOYMENT, live, deployment(), manager="me", api_version="apps/v1", now=LATER)
    assert not result.changed
    assert result.obj is live


def test_an_update_takes_ownership_and_a_removal_ends_it() -> None:
    live = applied(None, deployment(replicas=3))
    scaled = updated(live, {"spec": {"replicas": 5}}, "autoscaler")
    assert "f:replicas" not in owners(scaled)["me"]["f:spec"]
    assert owners(scaled)["autoscaler"] == {"f:spec": {"f:replicas": {}}}
    gone = copy.deepcopy(scaled)
    del gone["spec"]["replicas"]
    entries = managed_fields.record_update(DEPLOYMENT, scaled, gone, manager="x", api_version="apps/v1", now=LATER)
    assert {entry["manager"] for entry in entries} == {"me"}


def test_a_status_is_owned_apart_and_an_unchanged_one_changes_nothing() -> None:
    live = created({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}, "k", POD)
    condition = {"type": "Ready", "status": "True"}
    new = updated(live, {"status": {"phase": "Running", "conditions": [condition]}}, "kubelet", "status", POD)
    entry = new["metadata"]["managedFields"][-1]
    assert (entry["manager"], entry["subresource"]) == ("kubelet", "status")
    assert entry["fieldsV1"] == {
        "f:status": {
            "f:conditions": {".": {}, 'k:{"type":"Ready"}': {".": {}, "f:status": {}, "f:type": {}}},
            "f:phase": {},
        }
    }
    again = managed_fields.record_update(
        POD,
        new,
        copy.deepcopy(new),
        manager="kubelet",
        api_version="v1",
        now="2030-01-01T00:00:00Z",
        subresource="status",
    )
    assert again == new["metadata"]["managedFields"]


def test_nobody_owns_what_the_server_keeps() -> None:
    live = created(
        {"metadata": {"name": "a", "uid": "u", "creationTimestamp": NOW, "generation": 1}, "data": {"a": "b"}},
        "k",
        CONFIG_MAP,
    )
    assert owners(live) == {"k": {"f:data": {".": {}, "f:a": {}}}}


def test_sets_atomic_lists_and_atomic_maps() -> None:
    config: Obj = {
        "metadata": {"name": "a", "finalizers": ["x.y/z"]},
        "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "args": ["1"]}]},
    }
    live = applied(None, config, node=POD)
    fields = owners(live)["me"]
    assert fields["f:metadata"] == {"f:finalizers": {'v:"x.y/z"': {}}}
    assert fields["f:spec"]["f:nodeSelector"] == {}
    assert fields["f:spec"]["f:containers"]['k:{"name":"c"}']["f:args"] == {}
    second: Obj = {"metadata": {"name": "a", "finalizers": ["q.r/s"]}}
    assert applied(live, second, "other", node=POD)["metadata"]["finalizers"] == ["x.y/z", "q.r/s"]


def test_the_first_apply_to_an_untracked_object_respects_what_was_there() -> None:
    live = deployment(replicas=3)
    with pytest.raises(errors.Conflict, match="before-first-apply"):
        applied(live, deployment(replicas=4))


def test_kubectl_takes_over_from_its_own_client_side_apply() -> None:
    last = deployment(replicas=3)
    live = deployment(replicas=3)
    live["metadata"]["annotations"] = {server_side.LAST_APPLIED: json.dumps(last)}
    live = created(live)
    after = applied(live, deployment(replicas=5), "kubectl")
    assert after["spec"]["replicas"] == 5
    assert json.loads(after["metadata"]["annotations"][server_side.LAST_APPLIED])["spec"]["replicas"] == 5
    with pytest.raises(errors.Conflict):
        applied(live, deployment(replicas=5), "somebody-else")


def test_a_migrated_custom_resource_keeps_its_metadata() -> None:
    spec = {"type": "object", "properties": {"size": {"type": "string"}}}
    node = CustomSchema({"type": "object", "properties": {"spec": spec}}, kind="Shirt", version="v1").node
    shirt: Obj = {
        "apiVersion": "a.b/v1",
        "kind": "Shirt",
        "metadata": {"name": "s", "namespace": "d", "annotations": {"x": "y"}},
        "spec": {"size": "M"},
    }
    entries = managed_fields.record_update(
        node, None, shirt, manager="kubectl-client-side-apply", api_version="a.b/v1", now=NOW, builtin=False
    )
    assert entries[0]["fieldsV1"]["f:metadata"] == {"f:annotations": {".": {}, "f:x": {}}}
    migrated = {
        **shirt,
        "metadata": {**shirt["metadata"], "managedFields": [{**entries[0], "operation": "Apply", "manager": "x"}]},
    }
    migrated["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["."] = {}
    config = {**shirt, "metadata": {"name": "s", "namespace": "d"}}
    result = server_side.apply(node, migrated, config, manager="x", api_version="a.b/v1", now=LATER, builtin=False).obj
    assert {name: value for name, value in result["metadata"].items() if name != "managedFields"} == {
        "name": "s",
        "namespace": "d",
    }


def test_a_writer_can_reset_ownership_and_replace_it_with_valid_entries() -> None:
    live = created(deployment())
    reset = copy.deepcopy(live)
    reset["metadata"]["managedFields"] = [{}]
    assert managed_fields.record_update(DEPLOYMENT, live, reset, manager="x", api_version="apps/v1", now=LATER) == []
    broken = copy.deepcopy(live)
    broken["metadata"]["managedFields"] = [{"operation": "Shout"}]
    entries = managed_fields.record_update(DEPLOYMENT, live, broken, manager="x", api_version="apps/v1", now=LATER)
    assert entries == live["metadata"]["managedFields"]


def test_entries_are_ordered_and_their_number_is_bounded() -> None:
    live = applied(None, deployment())
    for index in range(15):
        labels = {**live["metadata"]["labels"], f"l{index}": "x"}
        new = {**live, "metadata": {**live["metadata"], "labels": labels}}
        new["metadata"]["managedFields"] = managed_fields.record_update(
            DEPLOYMENT, live, new, manager=f"m{index:02}", api_version="apps/v1", now=f"2026-11-23T12:00:{index:02}Z"
        )
        live = new
    entries = live["metadata"]["managedFields"]
    assert entries[0]["operation"] == "Apply"
    assert sum(entry["operation"] == "Update" for entry in entries) == managed_fields.UPDATE_MANAGERS_MAX
    (ancient,) = [entry for entry in entries if entry["manager"] == managed_fields.ANCIENT]
    assert {"f:l0", "f:l5"} <= ancient["fieldsV1"]["f:metadata"]["f:labels"].keys()


@pytest.mark.parametrize(
    "config",
    [
        {"metadata": {"name": "a", "managedFields": [{}]}},
        {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}},
        {"spec": {"containers": [{"image": "no name"}]}},
    ],
)
def test_a_configuration_that_cannot_be_owned_is_a_bad_request(config: Obj) -> None:
    with pytest.raises(errors.BadRequest):
        applied(None, config, node=POD)


def test_a_configuration_names_no_field_that_the_kind_does_not_have() -> None:
    config = deployment()
    server_side.refuse_undeclared(DEPLOYMENT, config)
    config["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(errors.BadRequest) as caught:
        server_side.refuse_undeclared(DEPLOYMENT, config)
    assert caught.value.message == (
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): "
        '.spec.template.spec.containers[name="web"].imagee: field not declared in schema'
    )


def test_preserved_fields_of_custom_resources_are_declared() -> None:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}}
    node = CustomSchema({"type": "object", "properties": {"spec": free}}, kind="Shirt", version="v1").node
    server_side.refuse_undeclared(node, {"metadata": {"name": "x"}, "spec": {"a": "b", "c": [{"d": 1}]}})
    server_side.refuse_undeclared(CustomSchema(None, kind="Any", version="v1").node, {"spec": {"a": 1}, "more": [1]})
    for config, path in (
        ({"unknownField": 1}, ".unknownField"),
        ({"metadata": {"unknownMeta": 1}}, ".metadata.unknownMeta"),
    ):
        with pytest.raises(errors.BadRequest, match=f"\\{path}: field not declared in schema"):
            server_side.refuse_undeclared(node, config)


# Properties over arbitrary objects: maps, keyed lists, atomic lists, scalars.

NAMES = st.sampled_from("abc")
VALUE = st.integers(0, 2).map(str)
CONTAINER = st.fixed_dictionaries(
    {"image": VALUE},
    optional={"args": st.lists(VALUE, max_size=2), "env": st.dictionaries(NAMES, VALUE, max_size=2)},
)


def _pod(labels: dict[str, str], named: dict[str, Obj]) -> Obj:
    items = []
    for name, one in named.items():
        env = [{"name": key, "value": value} for key, value in one.get("env", {}).items()]
        items.append({**one, "name": name, **({"env": env} if "env" in one else {})})
    return {"metadata": {"name": "p", "labels": labels}, "spec": {"containers": items}}


PODS = st.builds(_pod, st.dictionaries(NAMES, VALUE, max_size=2), st.dictionaries(NAMES, CONTAINER, max_size=3))


@given(PODS, PODS)
def test_after_a_forced_apply_the_configuration_holds_and_a_second_one_is_nothing(live: Obj, config: Obj) -> None:
    live = created(live, "before", POD)
    result = server_side.apply(POD, live, config, manager="me", api_version="v1", now=LATER, force=True).obj
    assert result["metadata"].get("labels", {}).items() >= config["metadata"]["labels"].items()
    by_name = {one["name"]: one for one in result["spec"].get("containers", [])}
    for one in config["spec"]["containers"]:
        assert by_name[one["name"]]["image"] == one["image"]
    again = server_side.apply(POD, result, config, manager="me", api_version="v1", now="2030-01-01T00:00:00Z")
    assert not again.changed


@given(PODS, PODS)
def test_what_only_an_applier_owns_goes_when_it_applies_something_else(first: Obj, second: Obj) -> None:
    live = server_side.apply(POD, None, first, manager="me", api_version="v1", now=NOW).obj
    result = server_side.apply(POD, live, second, manager="me", api_version="v1", now=LATER).obj
    assert result["metadata"].get("labels", {}) == second["metadata"]["labels"]
    ours = {one["name"] for one in result.get("spec", {}).get("containers", [])}
    assert ours == {one["name"] for one in second["spec"]["containers"]}


@given(PODS, PODS)
def test_added_and_removed_are_each_others_mirror(one: Obj, other: Obj) -> None:
    changed, removed = typed.compare(POD, one, other)
    back_changed, back_removed = typed.compare(POD, other, one)
    assert set(field_set.members(removed)) <= set(field_set.members(back_changed))
    assert set(field_set.members(back_removed)) <= set(field_set.members(changed))
    assert typed.compare(POD, one, copy.deepcopy(one)) == ({}, {})


SETS = st.recursive(
    st.just({}),
    lambda below: st.dictionaries(st.sampled_from(["f:a", "f:b", "f:c"]), below, min_size=1, max_size=3).flatmap(
        lambda fields: st.sampled_from([fields, {".": {}, **fields}])
    ),
    max_leaves=8,
).filter(lambda fields: "." not in fields)


@given(SETS, SETS)
def test_the_arithmetic_of_sets(left: Obj, right: Obj) -> None:
    ours, theirs = set(field_set.members(left)), set(field_set.members(right))
    assert set(field_set.members(field_set.union(left, right))) == ours | theirs
    assert set(field_set.members(field_set.difference(left, right))) == ours - theirs
    assert set(field_set.members(field_set.intersection(left, right))) == ours & theirs
    assert field_set.union(left, left) is left
