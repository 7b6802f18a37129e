"""Canonical bytes and the place of the resourceVersion in them."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from machinery.api.kinds import Kind
from services.apiserver import codec
from services.apiserver.registry.resource import Resource

ROW = Resource(Kind("example.com", "v1", "Thing", "things"), "thing", storage="things.example.com")
OLD = Resource(
    Kind("example.com", "v1beta1", "Thing", "things"), "thing", storage="things.example.com", storage_kind=ROW.kind
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
_objects = st.fixed_dictionaries(
    {"metadata": st.dictionaries(st.text(max_size=12), _json, max_size=4)},
    optional={"spec": _json, "data": _json, "status": _json},
)


def stored(obj: dict[str, Any], revision: int) -> bytes:
    return codec.splice(ROW.head, revision, codec.encode_tail(obj))


@given(_objects, st.integers(0, 2**63))
def test_bytes_decode_to_the_object_with_its_revision(obj: dict[str, Any], revision: int) -> None:
    obj["metadata"].pop("resourceVersion", None)
    decoded = orjson.loads(stored(obj, revision))
    assert decoded.pop("apiVersion") == "example.com/v1"
    assert decoded.pop("kind") == "Thing"
    assert decoded["metadata"].pop("resourceVersion") == str(revision)
    assert decoded == obj


@given(_objects, st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_revision_is_replaced_without_decoding(obj: dict[str, Any], one: int, two: int) -> None:
    assert codec.with_revision(stored(obj, one), two) == stored(obj, two)


@given(_objects, st.integers(0, 2**63))
def test_another_version_of_one_schema_differs_in_the_version_only(obj: dict[str, Any], revision: int) -> None:
    served = orjson.loads(codec.reversion(OLD, stored(obj, revision)))
    assert served.pop("apiVersion") == "example.com/v1beta1"
    expected = orjson.loads(stored(obj, revision))
    del expected["apiVersion"]
    assert served == expected


def test_equal_objects_have_equal_tails_whatever_the_order_of_keys() -> None:
    one = {"metadata": {"name": "a", "labels": {"x": "1", "y": "2"}}, "spec": {"a": 1, "b": 2}}
    two = {"spec": {"b": 2, "a": 1}, "metadata": {"labels": {"y": "2", "x": "1"}, "name": "a"}}
    assert codec.encode_tail(one) == codec.encode_tail(two)
