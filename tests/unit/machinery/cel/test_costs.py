"""What an expression may cost is estimated as upstream estimates it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery import cel
from machinery.cel import costs, shapes, sizes, tree
from machinery.cel.budget import Budget
from machinery.cel.errors import OutOfBudget
from machinery.cel.shapes import Range, Shape

TEXT = Shape("string", elements_max=3 * 1024 * 1024 - 2)


def text(most: int) -> Shape:
    return Shape("string", elements_max=most)


def items(of: Shape, most: int) -> Shape:
    return Shape("list", of, elements_max=most)


def entries(of: Shape, most: int) -> Shape:
    return Shape("map", of, Shape("string"), elements_max=most)


def record(**fields: Shape) -> Shape:
    return Shape("object", fields=fields)


INT, BOOL = Shape("int"), Shape("bool")
ROOT = record(
    metadata=record(name=TEXT, generateName=TEXT),
    s=TEXT, t=text(40), e=text(3), i=INT, b=BOOL,
    ls=items(text(20), 10), lu=items(TEXT, 1048575), li=items(INT, 100),
    lo=items(record(name=text(80), port=INT, sub=items(record(x=text(28)), 4)), 16),
    m=entries(text(36), 6), mu=entries(INT, 449389),
    dt=Shape("timestamp", elements_max=32), by=Shape("bytes", elements_max=40),
    ios=Shape("dyn", elements_max=3 * 1024 * 1024 - 2), o=record(u=TEXT), ll=items(items(INT, 3), 7),
    lou=items(record(type=TEXT, status=TEXT), 125829),
)  # fmt: skip

UPSTREAM = [
    ("self.s == 'x'", 3),
    ("self.t.contains('abc')", 6),
    ("self.s.matches('^[a-z]+$')", 629_148),
    ("self.e in ['a','b']", 14),
    ("self.lu.all(x, x.size() < 3)", 6_291_453),
    ("self.lo.all(x, self.lo.exists_one(y, x.name == y.name))", 3_699),
    ("self.lo.map(x, x.name).join(',') == 'x'", 1_844_674_407_370_955_502),
    ("self.ls.join(',') == 'abc'", 24),
    ("self.ls.isSorted()", 32),
    ("self.m.all(k, self.m[k].startsWith('a'))", 51),
    ("self.mu.all(k, self.mu[k] > 3)", 3_595_115),
    ("self.dt.getFullYear() > 2020", 4),
    ("self.by == b'abc'", 3),
    ("type(self.ios) == int ? self.ios > 3 : self.ios.contains('x')", 314_579),
    ("type(self.ios) == string", 4),
    ("self.ll.all(x, x.all(y, y > 3))", 143),
    ("self.s.split(',').all(x, x.size() > 1)", 19_503_505),
    ("self.t.split(',').map(x, x.trim()).all(y, y == 'a')", 702),
    ("self.t.split(',', 3).size() == 3", 12),
    ("self.t.replace('a', 'bb').contains('x')", 18),
    ("self.t.replace('', self.t).contains('x')", 180),
    ("self.t.findAll('[0-9]+').size() > 1", 14),
    ("(self.t + 'abc').contains('x')", 12),
    ("(self.ls + ['abcdefg']).all(x, x.contains('abc'))", 58),
    ("url(self.t).getHost() == 'a'", 8),
    ("cidr(self.t).containsIP(self.t)", 16),
    ("cidr(self.t).containsCIDR('10.0.0.0/8')", 14),
    ("quantity(self.t).add(quantity(self.s)).compareTo(quantity('1')) > 0", 314_585),
    ("sets.equivalent(self.li, self.li)", 20_005),
    ("self.o.?u.optMap(x, x.contains('abc')).orValue(true)", 1_844_674_407_370_955_285),
    ("self.t == 'a' ? self.ls.all(x, x == 'b') : self.lu.all(y, y == 'c')", 5_242_881),
    ("'%s is %d'.format([self.t, self.i]) == 'a'", 16),
    ("oldSelf.lo.all(x, self.lo.exists(y, y.name == x.name))", 4_195),
    ("self.metadata.name.matches('^[a-z]+$')", 629_149),
    ("self.lou.all(c, self.lou.exists_one(d, c.type == d.type))", 4_980_709_565_217_345),
    ("self.lo.map(x, x.sub.map(y, y.x)).all(z, z.all(w, w.contains('abc')))", 1_390),
    ("self.m.map(k, self.m[k]).all(v, v.contains('abc'))", 134),
    ("has(self.o.u) ? self.o.u.size() < 10 : true", 7),
    ("self == oldSelf", 2),
    ("self.li.distinct().size() == self.li.size()", 20_018),
    ("self.ls.sort().slice(0, 2).size() == 2", 238),
    ("lists.range(5).all(x, x < 9)", 42),
    ("cidr(self.t).ip() == ip('1.1.1.1')", 9),
    ("self.ll.flatten().size() > 1", 22),
]
"""(expression, the most that Kubernetes v1.36 estimates it to cost): found by asking its own code."""


@pytest.mark.parametrize(("expression", "most"), UPSTREAM)
def test_estimates_are_upstreams(expression: str, most: int) -> None:
    assert costs.estimate(cel.compile(expression).tree, ROOT).most == most


def test_an_optional_old_value_has_the_bounds_of_the_new_one() -> None:
    old = {"oldSelf": Shape("optional", text(40), elements_max=40)}
    estimated = costs.estimate(cel.compile("!oldSelf.hasValue() || self == oldSelf.value()").tree, text(40), old)
    assert estimated.most == 10


@given(
    st.recursive(
        st.integers(0, 9) | st.text("ab", max_size=9),
        lambda below: st.lists(below, max_size=5) | st.dictionaries(st.sampled_from("xyz"), below, max_size=3),
        max_leaves=20,
    )
)
def test_items_are_of_their_mean_size(value: Any) -> None:
    def seen(shape: Shape) -> Any:
        item = shape.item
        return (
            shape.kind,
            shape.elements_max,
            item and seen(item),
            {name: seen(shape.fields[name]) for name in shape.fields},
        )

    item = shapes.Values([[value, value, value]]).item
    assert item is not None
    assert seen(item) == seen(shapes.Values([value]))


@given(st.integers(0, 2**64), st.integers(0, 2**64), st.floats(0, 100))
def test_ranges_stop_at_the_largest_number(one: int, other: int, factor: float) -> None:
    low, high = sorted((min(one, shapes.INFINITE), min(other, shapes.INFINITE)))
    amount = Range(low, high)
    for made in (amount.plus(amount), amount.times(amount), amount.scaled(factor), amount.union(amount)):
        assert 0 <= made.least <= made.most <= shapes.INFINITE


def measured(expression: str, value: Any) -> int:
    return costs.measure(
        cel.compile(expression).tree, {"self": shapes.Values([value])}, sizes.deep_size(value, 1 << 30)
    )


def test_values_at_hand_cost_what_they_are() -> None:
    short, long = ["ab"] * 10, ["ab"] * 1000
    rule = "self.all(x, x.startsWith('a'))"
    assert 90 * measured(rule, short) < measured(rule, long) < 110 * measured(rule, short)
    # Parts of a text are no longer, together, than the text: no square comes of loops in loops over them.
    parts = "self.split(',').map(x, x.split('.').map(y, y.trim())).size() > 1"
    assert measured(parts, "a.b,c.d" * 1000) < 50 * 7 * 1000
    assert measured("type(self) == string", "x" * 1000) < 10


def test_one_expression_may_cost_no_more_than_upstreams_limit() -> None:
    squared = cel.compile("self.all(x, self.all(y, x == y))")
    Budget().charge(squared, {"self": ["a"] * 100})
    with pytest.raises(cel.CelError, match="operation cancelled: actual cost limit exceeded"):
        Budget().charge(squared, {"self": ["a"] * 1000})


def test_expressions_that_belong_together_share_a_budget() -> None:
    budget, value = Budget(), {"self": ["a"] * 350}
    squared = cel.compile("self.all(x, self.all(y, x == y))")
    budget.charge(squared, value)
    each = 10_000_000 - budget.left
    for _ in range(budget.left // each):
        budget.charge(squared, value)
    with pytest.raises(OutOfBudget, match="running out of cost budget, no further validation rules will be run"):
        budget.charge(squared, value)
    assert budget.left == 0


def test_the_authorizer_may_be_asked_twice() -> None:
    def asked(times: int) -> cel.Program:
        check = "authorizer.group('').resource('pods').check('get').allowed()"
        return cel.compile(" && ".join([check] * times), ("authorizer",))

    Budget().charge(asked(2), {"authorizer": {}})
    with pytest.raises(cel.CelError, match="cost limit exceeded"):
        Budget().charge(asked(3), {"authorizer": {}})


def test_a_variable_is_found_wherever_it_stands() -> None:
    for source, there in (
        ("self == oldSelf", True), ("[{'a': oldSelf}].size() > 0", True), ("self.all(x, x in oldSelf.y)", True),
        ("has(oldSelf.a)", True), ("self == 'oldSelf'", False), ("self.oldSelf == 1", False),
    ):  # fmt: skip
        assert tree.mentions(cel.compile(source).tree, "oldSelf") is there
