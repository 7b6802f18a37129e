"""Object literals of mutating admission policies become map literals, and nothing else in an expression changes."""

import pytest

from machinery import cel
from services.apiserver.schema.cel_objects import as_maps


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("Object{}", {}),
        ("Object{spec: Object.spec{replicas: 1 + 2}}", {"spec": {"replicas": 3}}),
        ("Object{metadata: Object.metadata{labels: {'a': 'b'}}}", {"metadata": {"labels": {"a": "b"}}}),
        ("Object { spec : Object . spec { name : 'x' } }", {"spec": {"name": "x"}}),
        ("Object{spec: Object.spec{`a-b/c`: 'x'}}", {"spec": {"a-b/c": "x"}}),
        ("Object{spec: n > 1 ? Object.spec{a: 1} : Object.spec{b: {'c': [n, 2]}}}", {"spec": {"b": {"c": [1, 2]}}}),
        ("Object{spec: Object.spec{?a: optional.none(), b: 1}}", {"spec": {"b": 1}}),
        ("Object{spec: Object.spec{items: [Object.spec.items{name: 'x'}]}}", {"spec": {"items": [{"name": "x"}]}}),
        ("[JSONPatch{op: 'add', path: '/' + jsonpatch.escapeKey('a/~b'), value: Object.spec{x: 1}}]",
         [{"op": "add", "path": "/a~1~0b", "value": {"x": 1}}]),
        ("'Object{a: 1}'", "Object{a: 1}"),
        ("'''it's Object{a: 1}'''", "it's Object{a: 1}"),
        ("r'\\Object{' + \"\\\"JSONPatch{\"", "\\Object{\"JSONPatch{"),
        ("n // Object{a: 1}\n + 1", 2),
    ],
)  # fmt: skip
def test_a_literal_is_the_map_with_its_keys(source, value):
    assert cel.compile(as_maps(source), ("n",)).evaluate({"n": 1}) == value


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("Object{spec: Object.wrong{}}", "expected 'Object.spec'"),
        ("Object{spec: Object.spec{selector: Object.selector{}}}", "expected 'Object.spec.selector'"),
        ("[JSONPatch{op: 'add', pth: '/x'}]", "undefined field 'pth' of JSONPatch"),
    ],
)
def test_a_literal_that_is_not_its_fields_type_is_refused(source, why):
    with pytest.raises(cel.CelError, match=why):
        as_maps(source)


def test_an_expression_without_literals_is_left_as_it_is():
    source = "object.spec.items.all(Object, Object.name in ['JSONPatch']) && has(variables.x) // {"
    assert as_maps(source) == source
