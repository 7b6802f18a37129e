"""The order in which a node that shuts down ends its pods."""

from __future__ import annotations

import pytest

from services.kubelet import shutdown_plan
from services.kubelet.shutdown_plan import Group, grace_seconds, groups, periods
from tests.support.kubelet_pods import pod

CRITICAL = 2_000_000_000


def of(name: str, priority: int | None = None, **spec: object):  # type: ignore[no-untyped-def]
    found = pod({"name": "c", "image": "i"}, priority=priority, **spec)
    found.metadata.name = name
    return found


def names(group: Group) -> list[str]:
    return [p.metadata.name or "" for p in group.pods]


def test_critical_pods_keep_their_part_of_the_time_and_end_last() -> None:
    assert periods(30, 10, {}) == {0: 20, CRITICAL: 10}
    found = groups([of("dns", CRITICAL + 1000), of("web"), of("low", -5), of("high", 100)], periods(30, 10, {}))
    assert [(names(g), g.seconds) for g in found] == [(["web", "low", "high"], 20), (["dns"], 10)]


def test_periods_by_priority_go_from_the_lowest() -> None:
    wanted = periods(30, 10, {100000: 10, 0: 60, 10000: 180})
    found = groups([of("a", 100000), of("b", 99999), of("c", 10000), of("d", 9999), of("e", -1)], wanted)
    assert [names(g) for g in found] == [["d", "e"], ["b", "c"], ["a"]]


def test_a_group_without_pods_takes_no_time() -> None:
    assert [g.priority for g in groups([of("dns", CRITICAL)], periods(30, 10, {}))] == [CRITICAL]


def test_without_a_period_nothing_is_ended() -> None:
    assert periods(0, 0, {}) == {}
    assert groups([of("a")], {}) == []


def test_more_for_critical_pods_than_for_all_is_refused() -> None:
    with pytest.raises(ValueError, match="shutdown_grace_critical_seconds: 20 is more than shutdown_grace_seconds, 10"):
        periods(10, 20, {})


def test_a_pod_gets_its_own_period_but_no_more_than_its_group_has() -> None:
    group = Group(0, 20)
    assert grace_seconds(of("a", terminationGracePeriodSeconds=5), group) == 5
    assert grace_seconds(of("a", terminationGracePeriodSeconds=600), group) == 20


def test_the_words_are_upstreams() -> None:
    verdict = shutdown_plan.verdict()
    assert (verdict.reason, verdict.message) == (
        "Terminated",
        "Pod was terminated in response to imminent node shutdown.",
    )
    assert verdict.condition is not None
    assert verdict.condition["reason"] == "TerminationByKubelet"
