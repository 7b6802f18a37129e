from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightkube.models import core_v1, meta_v1

from machinery.api import conditions, kinds, labels, objects


def test_encoding_leaves_out_what_is_none_and_keeps_what_is_empty() -> None:
    pod = core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name="a", labels={}),
        spec=core_v1.PodSpec(
            containers=[core_v1.Container(name="c", args=[])],
            volumes=[core_v1.Volume(name="v", emptyDir=core_v1.EmptyDirVolumeSource())],
        ),
    )
    assert objects.to_dict(pod) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {}},
        "spec": {"containers": [{"name": "c", "args": []}], "volumes": [{"name": "v", "emptyDir": {}}]},
    }
    assert objects.decode(kinds.POD, objects.encode(pod)) == pod


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert objects.canonical_json({"b": {"d": 1, "c": 2}, "a": 3}) == b'{"a":3,"b":{"c":2,"d":1}}'


def test_partial_objects_take_metadata_only() -> None:
    raw = (
        b'{"kind":"Pod","metadata":{"name":"a","finalizers":["x"],"managedFields":[{"manager":"m"}]},"spec":{"odd":1}}'
    )
    partial = objects.decode_partial(raw)
    assert (partial.kind, partial.metadata.name, partial.metadata.finalizers) == ("Pod", "a", ["x"])


def test_every_builtin_kind_has_its_model_and_is_found_both_ways() -> None:
    assert len(kinds.BUILTIN) > 60
    for kind in kinds.BUILTIN:
        assert kind.model is not None
        assert kind.model.__name__ == kind.kind
        assert kinds.find(kind.api_version, kind.kind) is kind
        assert kinds.by_plural(kind.group, kind.version, kind.plural) is kind
    assert (kinds.DEPLOYMENT.api_version, kinds.DEPLOYMENT.resource) == ("apps/v1", "deployments.apps")
    assert kinds.Kind("example.com", "v1", "Toy", "toys").model is None


def test_importing_the_kinds_imports_no_model_and_models_import_no_http_client() -> None:
    code = (
        "import sys; from machinery.api import kinds; assert not any(m.startswith('lightkube.') for m in sys.modules); "
        "assert kinds.POD.model; assert 'httpx' not in sys.modules and 'lightkube.core.client' not in sys.modules; "
        "from lightkube import Client; assert Client.__module__ == 'lightkube.core.client'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_owner_references_and_their_controller() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "uid": "u"}}
    reference = objects.owner_reference(owner)
    pod = core_v1.Pod(metadata=meta_v1.ObjectMeta(name="p", ownerReferences=[reference]))
    assert objects.controller_of(pod).uid == "u"
    assert objects.controller_of(objects.to_dict(pod))["uid"] == "u"
    assert objects.controller_of(owner) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_their_text(moment: datetime) -> None:
    assert objects.parse_time(objects.format_micro_time(moment)) == moment
    assert objects.parse_time(objects.format_time(moment)) == moment.replace(microsecond=0)


def test_times_with_offsets_become_utc_and_nonsense_is_refused() -> None:
    assert objects.format_time(objects.parse_time("2026-01-02T03:04:05.5+02:00")) == "2026-01-02T01:04:05Z"
    with pytest.raises(ValueError, match="is not an RFC 3339 time"):
        objects.parse_time("yesterday")


@given(st.sampled_from(["", "ns", "a-b"]), st.sampled_from(["name", "a.b", "x:y"]))
def test_keys_split_as_they_were_made(namespace: str, name: str) -> None:
    assert objects.split_key(objects.key_of(namespace, name)) == (namespace, name)


@pytest.mark.parametrize("good", ["a", "app.kubernetes.io/name", "A_b.c-d", "x" * 63, "a/b"])
def test_good_label_keys(good: str) -> None:
    assert labels.is_valid_label_key(good)


@pytest.mark.parametrize("bad", ["", "/a", "a/", "-a", "a-", "x" * 64, "a/b/c", "UPPER.com/a", "a b", "ä"])
def test_bad_label_keys(bad: str) -> None:
    assert not labels.is_valid_label_key(bad)


def test_a_condition_moves_its_transition_time_with_its_status_only() -> None:
    first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    found: list[core_v1.PodCondition] = []
    assert conditions.set_condition(found, "Ready", "False", "Why", "m", first, model=core_v1.PodCondition)
    assert conditions.set_condition(found, "Ready", "False", "Other", "m", second)
    assert (found[0].reason, found[0].lastTransitionTime) == ("Other", first)
    assert conditions.set_condition(found, "Ready", "True", "Other", "m", second)
    assert found[0].lastTransitionTime == second
    assert not conditions.set_condition(found, "Ready", "True", "Other", "m", first)
    plain: list[dict] = []
    assert conditions.set_condition(plain, "Ready", "True", "r", "", first)
    assert plain == [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "r"}]
    assert conditions.is_condition(plain, "Ready")
    assert conditions.remove_condition(plain, "Ready")
    assert plain == []
