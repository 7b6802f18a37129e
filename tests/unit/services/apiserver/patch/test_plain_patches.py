"""JSON patch (RFC 6902) and merge patch (RFC 7386)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api import errors
from services.apiserver.patch import json_patch, merge_patch

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab~/", max_size=3)
JSON = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("ab~/", max_size=2), below, max_size=3),
    max_leaves=10,
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(below) for name, below in value.items() if below is not None}
    return value


# Appendix A of RFC 6902, and upstream's own corners.
APPLIED = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
    ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
    (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
    ({"foo": None}, [{"op": "test", "path": "/foo", "value": None}], {"foo": None}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    (
        {"a": {"b": [1]}},
        [{"op": "copy", "from": "/a", "path": "/c"}, {"op": "add", "path": "/c/b/0", "value": 0}],
        {"a": {"b": [1]}, "c": {"b": [0, 1]}},
    ),
    ({"a": 1}, [{"op": "replace", "path": "", "value": [1]}], [1]),
    ({"a": 1}, [], {"a": 1}),
]


@pytest.mark.parametrize(("doc", "operations", "result"), APPLIED)
def test_json_patch_applies(doc: Any, operations: Any, result: Any) -> None:
    before = copy.deepcopy(doc)
    assert json_patch.apply(doc, operations) == result
    assert doc == before


REFUSED = [
    ([{"op": "remove", "path": "/nope"}], errors.Invalid),
    ([{"op": "replace", "path": "/nope", "value": 1}], errors.Invalid),
    ([{"op": "add", "path": "/nope/deeper", "value": 1}], errors.Invalid),
    ([{"op": "add", "path": "/list/9", "value": 1}], errors.Invalid),
    ([{"op": "add", "path": "/list/01", "value": 1}], errors.Invalid),
    ([{"op": "test", "path": "/list", "value": [1, 3]}], errors.Invalid),
    ([{"op": "test", "path": "/list/0", "value": True}], errors.Invalid),
    ([{"op": "move", "from": "/list", "path": "/list/0"}], errors.Invalid),
    ([{"op": "add", "path": "no-slash", "value": 1}], errors.BadRequest),
    ([{"op": "add", "path": "/x"}], errors.BadRequest),
    ([{"op": "shout", "path": "/x"}], errors.BadRequest),
    ([{"path": "/x"}], errors.BadRequest),
    ({"op": "add"}, errors.BadRequest),
    (["add"], errors.BadRequest),
    ([{"op": "test", "path": "/list", "value": [1, 2]}] * 10_001, errors.RequestTooLarge),
]


@pytest.mark.parametrize(("operations", "error"), REFUSED, ids=lambda value: str(value)[:50])
def test_json_patch_refuses(operations: Any, error: type[errors.ApiError]) -> None:
    doc = {"list": [1, 2]}
    with pytest.raises(error):
        json_patch.apply(doc, operations)
    assert doc == {"list": [1, 2]}


def test_copies_do_not_double_without_end() -> None:
    operations = [{"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(40)]
    with pytest.raises(errors.Invalid) as refused:
        json_patch.apply({"a": ["x" * 100]}, operations)
    assert "accumulated size" in refused.value.causes[0].message


# Appendix A of RFC 7386.
MERGED = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("doc", "patch", "result"), MERGED)
def test_merge_patch_applies(doc: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(doc)
    assert merge_patch.apply(doc, patch) == result
    assert doc == before


@given(JSON.map(without_nulls), JSON.map(without_nulls))
def test_applying_a_difference_gives_the_other_document(old: Any, new: Any) -> None:
    assert json_patch.equal(merge_patch.apply(old, merge_patch.diff(old, new)), new)


@given(JSON, JSON)
def test_applying_a_merge_patch_twice_changes_nothing_more(doc: Any, patch: Any) -> None:
    once = merge_patch.apply(doc, patch)
    assert merge_patch.apply(once, patch) == once


@given(JSON, st.dictionaries(st.text("ab", min_size=1, max_size=2), JSON, max_size=3))
def test_adding_and_removing_leaves_the_document(value: Any, doc: dict[str, Any]) -> None:
    operations = [{"op": "add", "path": "/new", "value": value}, {"op": "test", "path": "/new", "value": value}]
    assert json_patch.apply(doc, [*operations, {"op": "remove", "path": "/new"}]) == doc
