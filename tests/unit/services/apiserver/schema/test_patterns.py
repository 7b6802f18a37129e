"""Patterns of schemas and expressions are Go's, and none of them can hold the server."""

from __future__ import annotations

import pytest

from machinery.cel import expressions
from services.apiserver.schema import patterns

# Each holds an engine that backtracks for longer than the universe has been there.
HOSTILE = [
    r"^(a+)+$",
    r"(?i)^(a+)+$",
    r"\A(a+)+\z",
    r"(?P<x>a+)+$",
    r"^(a|aa)+\z",
    r"(.*)*,(.*)*,(.*)*,\z",
    r"(a?){30}a{30}\z",
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_pattern_is_judged_in_linear_time(pattern: str) -> None:
    assert patterns.problem(pattern) == ""
    assert not patterns.matches(pattern, "a" * 20_000 + "!")


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("call", ["self.matches(p)", "self.find(p) != ''", "self.findAll(p).size() > 0"])
def test_and_in_an_expression_too(pattern: str, call: str) -> None:
    program = expressions.compile(call, ("self", "p"))
    assert program.evaluate({"self": "a" * 20_000 + "!", "p": pattern}) is False


@pytest.mark.parametrize(
    "pattern", [r"(?=a)b", r"(?<!a)b", r"(a)\1", r"a\Z", r"(x{1000}){1000}", "(", "a{2,1}", "[b-a]"]
)
def test_what_go_does_not_take_is_no_pattern(pattern: str) -> None:
    assert patterns.problem(pattern) != ""
    assert not patterns.matches(pattern, "ab")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"(?i)^abc$", "ABC"), (r"\Aab\z", "ab"), (r"^\p{Greek}+$", "αβ"), (r"(?s)a.b", "a\nb"), (r"[[:alpha:]]", "x")],
)
def test_what_go_takes_matches_as_there(pattern: str, text: str) -> None:
    assert patterns.problem(pattern) == ""
    assert patterns.matches(pattern, text)
    assert not patterns.matches(pattern, "1")
