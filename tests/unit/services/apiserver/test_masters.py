"""Whether another apiserver lives is judged by when its Lease was seen to change, by our own clock."""

from __future__ import annotations

from services.apiserver.masters import Observed


def test_a_lease_ages_from_the_moment_at_which_it_was_seen_to_change() -> None:
    now = 100.0
    observed = Observed(lambda: now)
    assert observed.ages({"a": "1", "b": "7"}) == {"a": 0, "b": 0}
    now = 112.0
    assert observed.ages({"a": "2", "b": "7"}) == {"a": 0, "b": 12}
    now = 125.0
    assert observed.ages({"a": "2", "b": "7"}) == {"a": 13, "b": 25}


def test_one_that_was_gone_is_new_when_it_is_back() -> None:
    now = 0.0
    observed = Observed(lambda: now)
    observed.ages({"a": "1"})
    now = 30.0
    assert observed.ages({}) == {}
    assert observed.ages({"a": "1"}) == {"a": 0}
