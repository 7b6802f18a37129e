"""Loops over long lists are gone through in parts, and mean the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery import cel
from machinery.cel import parts

UNIQUE = "self.names.all(x, self.names.exists_one(y, x == y))"


@pytest.mark.parametrize(
    ("source", "path", "all_"),
    [
        ("self.all(x, x > 0)", ("self",), True),
        (" self . spec.items\n.all( x, (x.y) && x.startsWith(')') )  ", ("self", "spec", "items"), True),
        ("self.a.exists(x, x == \"a\\\")\")", ("self", "a"), False),
        ("!has(self.a) || self.a.all(x, true)", ("self", "a"), True),
    ],
)  # fmt: skip
def test_loops_that_are_a_whole_expression(source: str, path: tuple[str, ...], all_: bool) -> None:
    loop = parts.whole_loop(source)
    assert loop is not None
    assert (loop.path, loop.all) == (path, all_)
    cel.compile(loop.source, ("self", parts.ITEMS))


@pytest.mark.parametrize(
    "source",
    [
        "self.all(x, x) && true", "self.all(x, x).size()", "f(self).all(x, x)", "self.map(x, x)", "self[0].all(x, x)",
        "!has(self.b) || self.a.all(x, x)", "!has(self.a) || self.a.exists(x, x)", "self.all(x, '''a''' == x)",
        "self.all(x, x) || self.all(y, y)", "self.all(x, x // )", "true",
    ],
)  # fmt: skip
def test_what_is_no_single_loop_is_left_alone(source: str) -> None:
    assert parts.whole_loop(source) is None


def test_long_lists_are_compared_with_themselves() -> None:
    program = cel.compile(UNIQUE, ("self",))
    names = [f"n{number}" for number in range(300)]
    assert program.evaluate({"self": {"names": names}}) is True
    assert program.evaluate({"self": {"names": [*names, "n299"]}}) is False
    any_ = cel.compile("self.names.exists(x, self.names.exists_one(y, x == y))", ("self",))
    assert any_.evaluate({"self": {"names": names[:150] * 2}}) is False


def test_what_goes_round_too_often_even_so_is_refused() -> None:
    names = [f"n{number}" for number in range(3000)]
    with pytest.raises(cel.CelError, match="operation cancelled: actual cost limit exceeded"):
        cel.compile(UNIQUE, ("self",)).evaluate({"self": {"names": names}})
    with pytest.raises(cel.CelError, match="operation cancelled: actual cost limit exceeded"):
        cel.compile(f"{UNIQUE} && true", ("self",)).evaluate({"self": {"names": names[:300]}})


@given(st.lists(st.sampled_from([True, False, None]), max_size=9), st.integers(1, 9), st.booleans())
def test_parts_decide_as_the_whole_does(items: list[bool | None], most: int, all_: bool) -> None:
    def over(some: list[bool | None]) -> bool:
        if (not all_) in some:
            return not all_
        if None in some:
            raise cel.CelError("an item fails")
        return all_

    def once(variables: dict[str, Any]) -> bool:
        some = variables[parts.ITEMS]
        if len(some) > most:
            raise parts.TooManyRounds
        return over(some)

    def outcome(evaluate: Any) -> Any:
        try:
            return evaluate()
        except cel.CelError as error:
            return str(error)

    loop = parts.Loop(("self",), all_, "")
    assert outcome(lambda: parts.evaluate(loop, {"self": items}, once)) == outcome(lambda: over(items))
