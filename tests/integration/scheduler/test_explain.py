"""Explain and Simulate: verdicts in words and numbers, and what-ifs that change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machinery.api import errors, kinds
from protos.cutaway.v1 import scheduler_pb2
from services.scheduler.service import SchedulerService
from tests.integration.scheduler.conftest import pod


async def explain(world: Any, name: str) -> scheduler_pb2.ExplainResponse:
    request = scheduler_pb2.ExplainRequest(namespace="default", pod=name)
    return await SchedulerService(world.scheduler).Explain(request, None)


async def simulate(world: Any, pods: list[dict[str, Any]], more: int = 0) -> scheduler_pb2.SimulateResponse:
    request = scheduler_pb2.SimulateRequest(pods=[json.dumps(p).encode() for p in pods], more_of_last_max=more)
    return await SchedulerService(world.scheduler).Simulate(request, None)


async def test_each_node_says_what_refuses_the_pod_and_what_would_help(world: Any) -> None:
    await world.add_node("small", cpu="300m")
    await world.add_node("tainted", taints=[{"key": "dedicated", "value": "db", "effect": "NoSchedule"}])
    await world.add_node("closed", cpu="300m", unschedulable=True)
    await world.start()
    await world.add_pod("p", cpu="500m")
    await world.until(lambda: world.message("p") != "")
    answer = await explain(world, "p")
    assert answer.summary == world.message("p")
    remedies = {node.node: [plugin.remedy for plugin in node.plugins if not plugin.fits] for node in answer.nodes}
    assert remedies == {
        "small": ["fits on small if the cpu request is ≤ 300m"],
        "tainted": ["fits on tainted if taint dedicated is tolerated"],
        "closed": ["fits on closed if the node is uncordoned", "fits on closed if the cpu request is ≤ 300m"],
    }
    # The smallest changes come first.
    assert "closed" not in answer.remedies[0]
    assert answer.remedies[-1] == "fits on closed if the node is uncordoned and the cpu request is ≤ 300m"


async def test_labels_and_company_are_named_and_a_node_fails_by_one_rule_of_a_plugin(world: Any) -> None:
    await world.add_node("n0")
    await world.start()
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}  # fmt: skip
    await world.add_pod("first", affinity=apart)
    await world.until(lambda: world.placements()["first"] == "n0")
    picky = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]},
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n9"]}]}]}}}  # fmt: skip
    await world.add_pod("second", affinity=apart)
    await world.add_pod("choosy", nodeSelector={"disk": "ssd"}, affinity=picky)
    await world.until(lambda: world.message("second") != "" and world.message("choosy") != "")
    # Both directions of the same rule refuse: as upstream, one is told.
    assert "1 node(s) didn't match pod anti-affinity rules. " in world.message("second")
    (node,) = (await explain(world, "choosy")).nodes
    remedies = [plugin.remedy for plugin in node.plugins if plugin.plugin == "NodeAffinity"]
    assert remedies == ["fits on n0 if its label disk is ssd and its label cores is more than 8, or it is n9"]


async def test_whom_preemption_would_evict_is_said_and_not_done(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.start()
    await world.add_pod("low", cpu="1", priority=1)
    await world.until(lambda: world.placements()["low"] == "n0")
    await world.add_pod("high", cpu="1", priority=9, schedulingGates=[{"name": "example.com/wait"}])
    await world.until(lambda: world.scheduler.queue.counts["gated"] == 1, awake=True)
    answer = await explain(world, "high")
    assert answer.remedies[0] == "fits on n0 after the eviction of default/low"
    assert "deletionTimestamp" not in world.server.state.get(kinds.POD, "default", "low")["metadata"]


async def test_scores_add_up_and_the_best_is_chosen(world: Any) -> None:
    await world.add_node("big", cpu="16", memory="64Gi")
    await world.add_node("little", cpu="1", memory="4Gi")
    await world.start()
    await world.add_pod("p", cpu="500m")
    await world.until(lambda: world.placements()["p"] == "big")
    answer = await explain(world, "p")
    assert (answer.bound_node, answer.chosen_node) == ("big", "big")
    for node in answer.nodes:
        assert node.fits
        assert node.total_score == sum(p.score * p.weight for p in node.plugins if p.HasField("score"))
    assert answer.nodes[0].total_score != answer.nodes[1].total_score
    world.scheduler.state.validate()
    with pytest.raises(errors.NotFound):
        await explain(world, "absent")


async def test_simulating_says_how_many_more_fit_and_leaves_no_trace(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.add_node("n1", cpu="2")
    await world.start()
    await world.add_pod("there", cpu="500m")
    await world.until(lambda: bool(world.placements()["there"]))
    before = world.scheduler.state.requested.copy()
    answer = await simulate(world, [pod("a", cpu="500m"), pod("huge", cpu="8"), pod("b", cpu="500m")], more=100)
    placed = {placement.pod: bool(placement.node) for placement in answer.placements}
    assert placed == {"default/a": True, "default/huge": False, "default/b": True}
    assert "2 Insufficient cpu" in answer.placements[1].reason
    assert answer.more_of_last == sum(answer.more_of_last_by_node.values()) == 3
    assert (world.scheduler.state.requested == before).all()
    assert set(world.placements()) == {"there"}
    world.scheduler.state.validate()


async def test_nonsense_is_a_bad_request(world: Any) -> None:
    await world.start()
    request = scheduler_pb2.SimulateRequest(pods=[b"{"])
    with pytest.raises(errors.BadRequest, match=r"pods\[0\]"):
        await SchedulerService(world.scheduler).Simulate(request, None)
    with pytest.raises(errors.BadRequest, match="at most"):
        await simulate(world, [pod("a")], more=1_000_000)
    assert (await simulate(world, [], more=5)).more_of_last == 0
