"""Every constraint is said twice, as JSON schema and as a check with words: the two must never differ."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apiserver.schema.constraints import CONSTRAINTS, ZERO_IS_FINE, Constraint, short_name
from services.apiserver.schema.definitions import definitions, node_named

BY_SHORT_NAME = {short_name(name): name for name in definitions()}
TABLE = {
    # Each constraint once: many fields share one.
    id(one): (f"{name}.{field}", BY_SHORT_NAME[name], field, one)
    for name, fields in CONSTRAINTS.items()
    for field, one in fields.items()
}


def test_the_table_names_fields_that_exist() -> None:
    for name, fields in CONSTRAINTS.items():
        assert fields.keys() <= node_named(BY_SHORT_NAME[name]).fields.keys(), name


TEXT = st.text(alphabet="aZ09-_./= A\n%é~", max_size=12) | st.sampled_from(
    [
        "",
        "a" * 63,
        "a" * 64,
        "a" * 253,
        "a" * 254,
        "a." * 126 + "a",
        "x/" + "a" * 64,
        "http",
        "a--b",
        "15chars-15chars",
        "TCP",
    ]
)
WHOLE = st.integers(-3, 70000) | st.sampled_from([2**31 - 1, 2**31, 86400, 86401, 0o777, 0o1000, 3600, 3601])


def values(kind: str, item: str) -> st.SearchStrategy[Any]:
    match kind:
        case "integer":
            return WHOLE
        case "map":
            return st.dictionaries(TEXT, TEXT, max_size=3)
        case "array":
            return st.lists(TEXT, max_size=3)
        case _:
            return TEXT


@pytest.mark.parametrize(
    ("definition", "field", "constraint"), [row[1:] for row in TABLE.values()], ids=[row[0] for row in TABLE.values()]
)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_schema_and_the_words_agree(
    definition: str, field: str, constraint: Constraint, data: st.DataObject
) -> None:
    node = node_named(definition).fields[field]
    value = data.draw(values(node.type, node.item.type if node.type in ("array", "map") else ""))
    judged = jsonschema_rs.Draft4Validator(constraint.fragment).is_valid(value)
    assert judged == (constraint.check(value, "f") == []), (value, constraint.check(value, "f"))


@pytest.mark.parametrize("name", ZERO_IS_FINE)
def test_exceptions_from_required_are_of_fields_that_exist(name: str) -> None:
    node = node_named(BY_SHORT_NAME[name])
    assert ZERO_IS_FINE[name] <= node.fields.keys()
