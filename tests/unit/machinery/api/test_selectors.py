from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightkube.models import meta_v1

from machinery.api import selectors
from machinery.api.errors import BadRequest

KEYS = st.sampled_from(["app", "tier", "example.com/zone", "in", "x"])
VALUES = st.sampled_from(["", "web", "db", "a-b.c_d", "7", "notin"])
LABELS = st.dictionaries(KEYS, VALUES)


@st.composite
def requirements(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
    values = draw(st.lists(VALUES, min_size=1, max_size=3, unique=True)) if operator in ("In", "NotIn") else []
    return draw(KEYS), operator, values


def naive(requirement: tuple[str, str, list[str]], labels: dict[str, str]) -> bool:
    key, operator, values = requirement
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    return (key in labels) == (operator == "Exists")


@given(st.lists(requirements(), max_size=4), LABELS)
def test_an_object_selector_matches_as_its_definition_says(wanted: list, labels: dict[str, str]) -> None:
    expressions = [meta_v1.LabelSelectorRequirement(key=k, operator=o, values=v or None) for k, o, v in wanted]
    selector = selectors.from_label_selector(meta_v1.LabelSelector(matchExpressions=expressions))
    assert selector.matches(labels) == all(naive(requirement, labels) for requirement in wanted)


@given(st.lists(requirements(), max_size=4), LABELS)
def test_the_text_form_means_the_same(wanted: list, labels: dict[str, str]) -> None:
    expressions = [{"key": k, "operator": o, "values": v} for k, o, v in wanted]
    selector = selectors.from_label_selector({"matchExpressions": expressions})
    again = selectors.parse_label_selector(str(selector))
    assert again.matches(labels) == selector.matches(labels)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("app=web", {"app": "web"}, {"app": "db"}),
        ("app==web,tier!=db", {"app": "web"}, {"app": "web", "tier": "db"}),
        ("app in (web, db)", {"app": "db"}, {}),
        ("app notin (web)", {}, {"app": "web"}),
        ("!app", {"x": "y"}, {"app": ""}),
        ("app", {"app": ""}, {}),
        ("size>5", {"size": "6"}, {"size": "many"}),
        (" app = web , x ", {"app": "web", "x": "1"}, {"app": "web"}),
        ("app=", {"app": ""}, {"app": "x"}),
        ("in in (in)", {"in": "in"}, {}),
        ("x in (,a)", {"x": ""}, {"x": "b"}),
    ],
)
def test_the_text_forms_of_the_rest_api(text: str, matching: dict[str, str], other: dict[str, str]) -> None:
    selector = selectors.parse_label_selector(text)
    assert selector.matches(matching)
    assert not selector.matches(other)


@pytest.mark.parametrize(
    "text", ["=x", "a b", "a in x", "a in (x", ",", "a,", "a,,b", "a=b=c", "(a)", "a>x", "-a", "a=b c", "/x", "x/=1"]
)
def test_malformed_text_is_a_bad_request(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^(unable to parse requirement: )?(found '|<nil>: |values\[0\])"):
        selectors.parse_label_selector(text)


@given(st.text(max_size=40))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    for parse in (selectors.parse_label_selector, selectors.parse_field_selector):
        with contextlib.suppress(BadRequest):
            parse(text)


def test_no_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert not selectors.from_label_selector(None).matches({"a": "b"})
    assert selectors.from_label_selector({}).matches(None)
    assert selectors.everything().matches({})
    assert not selectors.nothing().matches({})


def test_field_selectors_compare_and_escape() -> None:
    selector = selectors.parse_field_selector(r"spec.nodeName=a\,b,status.phase!=Failed,metadata.name==x")
    assert selector.matches({"spec.nodeName": "a,b", "metadata.name": "x"})
    assert not selector.matches({"spec.nodeName": "a,b", "metadata.name": "x", "status.phase": "Failed"})
    assert selectors.parse_field_selector(str(selector)) == selector
    with pytest.raises(BadRequest):
        selectors.parse_field_selector("metadata.name")
