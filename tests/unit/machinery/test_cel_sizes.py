"""How large an expression's values can become is known before it is evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.cel import sizes
from machinery.cel.errors import CelError
from machinery.cel.expressions import Program, compile


def doubled(times: int) -> str:
    """`times` bindings, each twice the one before."""
    expression = f"x{times}"
    for number in range(times, 0, -1):
        last = "self" if number == 1 else f"x{number - 1}"
        expression = f"cel.bind(x{number}, {last} + {last}, {expression})"
    return f"{expression}.size()"


def limit(program: Program) -> int:
    return program._input_bytes_max


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (doubled(25), "a" * 100),
        ("self.replace('a', self)", "a" * 100_000),
        ("self.map(x, self.map(y, x).join('')).join('')", ["a" * 1000] * 90),
        ("self.map(x, self).map(y, y.join('')).join('')", ["a" * 1000] * 90),
        ("self.map(x, self)", ["a" * 1000] * 90),
        (
            "[1,2,3,4,5,6,7,8,9].map(a, [1,2,3,4,5,6,7,8,9].map(b, [1,2,3,4,5,6,7,8,9].map(c, self).join('')))",
            "a" * 10**6,
        ),
        ("'%s%s'.format([self, self]).replace('a', self)", "a" * 100_000),
        ("cel.bind(r, self.replace('', self), r.replace('', r))", "a" * 1000),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_could_fill_the_memory_is_not_evaluated(expression: str, value: object) -> None:
    with pytest.raises(CelError, match="too large"):
        compile(expression, ("self",)).evaluate({"self": value})


@pytest.mark.parametrize(
    "expression",
    [
        "self.spec.replicas <= 5 && self.metadata.name.startsWith('x')",
        "self.items.all(i, i.name.matches('^a+$') && i.ports.all(p, p > 0))",
        "self.items.map(i, i.name).join(',') != ''",
        "self.items.filter(i, i.on).map(i, i.name).isSorted()",
        "self.all(x, self.exists_one(y, x == y))",
        "self.name.replace('-', '_').lowerAscii()",
        "has(self.a) ? self.a.size() : self.b.size()",
        "self.map(k, self[k]).exists(v, v == '')",
    ],
)
def test_what_people_write_is_evaluated_at_any_size(expression: str) -> None:
    assert limit(compile(expression, ("self",))) == sizes.INPUT_BYTES_MAX


@given(st.lists(st.text("ab,", max_size=30), max_size=30), st.sampled_from([
    "self.map(x, x + x).join(',')", "self.join('ab').replace('a', 'bbb')",
    "'%s %s'.format([self.join(''), self.join('')])", "cel.bind(a, self.join(''), a + a + a)",
    "self.map(x, x.split(',').map(y, y + x).join('')).join('')",
    "self.filter(x, x != '').map(x, x.upperAscii()).join('')",
]))  # fmt: skip
def test_no_value_is_larger_than_its_bound(words: list[str], expression: str) -> None:
    program = compile(expression, ("self",))
    # What is refused for its size has no value to judge: here everything is evaluated.
    program._input_bytes_max = sizes.INPUT_BYTES_MAX
    estimate = sizes._Estimate(sizes.deep_size(words, 1 << 30))
    bound = estimate.most(estimate.of(program.tree, {}, 1))
    assert len(program.evaluate({"self": words}).encode()) <= bound
