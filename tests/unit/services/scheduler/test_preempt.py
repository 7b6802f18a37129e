"""Whom preemption evicts, and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from machinery.api import selectors
from services.scheduler import config as scheduler_config
from services.scheduler.cluster_state import ClusterState
from services.scheduler.diagnosis import diagnose
from services.scheduler.objects import Container, Metadata, Node, NodeStatus, Pod, PodSpec, PodStatus, Resources
from services.scheduler.pod_info import PodInfo
from services.scheduler.preempt import Budget, Candidate, plan

START = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str, priority: int, cpu: str = "1", minutes: int = 0, app: str = "", **spec: object) -> PodInfo:
    container = Container(name="c", resources=Resources(requests={"cpu": cpu}))
    metadata = Metadata(name=name, namespace="d", uid=name, labels={"app": app or name})
    status = PodStatus(startTime=START + timedelta(minutes=minutes))
    return PodInfo(
        Pod(metadata=metadata, spec=PodSpec(containers=[container], priority=priority, **spec), status=status)
    )  # type: ignore[arg-type]


def cluster(**nodes: list[PodInfo]) -> ClusterState:
    state = ClusterState()
    for name, pods in nodes.items():
        state.set_node(Node(metadata=Metadata(name=name), status=NodeStatus(allocatable={"cpu": "2", "pods": "9"})))
        for info in pods:
            state.set_pod(info, name)
    return state


def preempt(state: ClusterState, preemptor: PodInfo, *budgets: Budget) -> tuple[Candidate | None, str]:
    profile = scheduler_config.build_profiles(scheduler_config.read(""))["default-scheduler"]
    diagnosis = diagnose(preemptor, state, profile)
    before = {row.name: sorted(row.pods) for row in state.rows if row}
    candidate = plan(preemptor, state, profile, diagnosis, budgets, np.random.default_rng(1))
    assert {row.name: sorted(row.pods) for row in state.rows if row} == before
    state.validate()
    return candidate, diagnosis.preemption


def victims(candidate: Candidate | None) -> list[str]:
    assert candidate is not None
    return sorted(victim.name for victim in candidate.victims)


def test_no_more_are_evicted_than_room_is_needed_for() -> None:
    state = cluster(n0=[pod("a", 1), pod("b", 2)])
    assert victims(preempt(state, pod("p", 10))[0]) == ["a"]
    assert victims(preempt(state, pod("p", 10, "2"))[0]) == ["a", "b"]


def test_equal_priority_is_never_evicted() -> None:
    state = cluster(n0=[pod("a", 10), pod("b", 10)])
    candidate, why = preempt(state, pod("p", 10))
    assert candidate is None
    assert why == "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."


def test_of_two_nodes_the_one_with_the_lesser_victims_is_taken() -> None:
    state = cluster(n0=[pod("a", 5), pod("b", 5)], n1=[pod("c", 1), pod("d", 9)])
    assert victims(preempt(state, pod("p", 10))[0]) == ["c"]


def test_among_equals_the_youngest_goes() -> None:
    state = cluster(n0=[pod("old", 1), pod("young", 1, minutes=9)])
    assert victims(preempt(state, pod("p", 10))[0]) == ["young"]


def test_budgets_are_kept_where_another_way_exists_and_broken_where_none_does() -> None:
    budget = Budget("d", selectors.parse_label_selector("app=kept"), 0)
    kept = [pod("k1", 1, app="kept"), pod("k2", 1, app="kept")]
    state = cluster(n0=kept, n1=[pod("x", 5), pod("y", 5)])
    candidate, _ = preempt(state, pod("p", 10), budget)
    assert candidate is not None
    assert state.name(candidate.row) == "n1"
    alone = cluster(n0=[pod("k1", 1, app="kept"), pod("z", 1)])
    assert victims(preempt(alone, pod("p", 10), budget)[0]) == ["z"]
    only = cluster(n0=[pod("k1", 1, app="kept"), pod("k2", 1, app="kept")])
    candidate, _ = preempt(only, pod("p", 10), budget)
    assert candidate is not None
    assert candidate.violations == 1


@pytest.mark.parametrize(
    ("preemptor", "why"),
    [
        (pod("p", 10, preemptionPolicy="Never"), "preemption: not eligible due to preemptionPolicy=Never."),
        (pod("p", 10, "3"), "preemption: 0/1 nodes are available: 1 Insufficient cpu."),
        (
            pod("p", 10, nodeSelector={"x": "y"}),
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        ),
    ],
)
def test_why_nobody_is_evicted(preemptor: PodInfo, why: str) -> None:
    assert preempt(cluster(n0=[pod("a", 1), pod("b", 1)]), preemptor) == (None, why)
