"""Percentages: of what, and in which direction they round, kind by kind, against arithmetic of its own."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager.actions import Delete
from services.controller_manager.controllers.daemon_set import plan as daemon_sets
from services.controller_manager.controllers.deployment import rollout
from services.controller_manager.controllers.disruption import plan as disruption
from services.controller_manager.controllers.stateful_set import plan as stateful_sets
from services.controller_manager.intstr import scaled
from tests.support.controllers import deployment
from tests.support.plan_world import World
from tests.unit.services.controller_manager.test_daemon_set_plan import daemon_set
from tests.unit.services.controller_manager.test_policy_plans import budget
from tests.unit.services.controller_manager.test_policy_plans import pods as make_pods
from tests.unit.services.controller_manager.test_stateful_set_plan import settle, stateful_set

amounts = st.one_of(st.integers(0, 15), st.integers(0, 200).map(lambda n: f"{n}%"))
sizes = st.integers(0, 40)


def exact(value: int | str, total: int) -> Fraction:
    return Fraction(value) if isinstance(value, int) else Fraction(int(value[:-1]) * total, 100)


@given(amounts, sizes)
def test_a_percentage_is_rounded_the_way_that_is_asked_for(value: int | str, total: int) -> None:
    assert scaled(value, total, round_up=True) == math.ceil(exact(value, total))
    assert scaled(value, total, round_up=False) == math.floor(exact(value, total))


@pytest.mark.parametrize("value", ["25", "%", "-1%", "x%", "2.5%", "", "25%%"])
def test_what_is_no_percentage_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is not a percentage"):
        scaled(value, 4, round_up=True)


@given(sizes, amounts, amounts)
def test_a_deployment_rounds_surge_up_and_unavailable_down_and_always_moves(
    size: int, surge: int | str, unavailable: int | str
) -> None:
    world = World()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    world.create(deployment("web", size, strategy=strategy))
    bounds = rollout.bounds(world.view(kinds.DEPLOYMENT, "web"))
    up, down = math.ceil(exact(surge, size)), math.floor(exact(unavailable, size))
    assert bounds.surge == up
    assert bounds.unavailable == min(size, down if up or down else 1)
    assert size == 0 or bounds.surge + bounds.unavailable > 0


def test_a_quarter_is_what_a_deployment_takes_where_nothing_is_said_and_recreate_knows_no_bounds() -> None:
    world = World()
    world.create(deployment("web", 10, strategy={"type": "RollingUpdate"}))
    assert rollout.bounds(world.view(kinds.DEPLOYMENT, "web")) == rollout.Bounds(3, 2)
    world.create(deployment("re", 10, strategy={"type": "Recreate"}))
    assert rollout.bounds(world.view(kinds.DEPLOYMENT, "re")) == rollout.Bounds(0, 0)


@given(st.integers(0, 12), st.integers(0, 6), amounts, amounts)
def test_a_daemon_set_rounds_both_up_and_counts_the_nodes_where_it_belongs(
    nodes: int, others: int, surge: int | str, unavailable: int | str
) -> None:
    world = World()
    world.create(daemon_set(maxSurge=surge, maxUnavailable=unavailable))
    by_node = {f"n{n}": daemon_sets._OnNode(starts=n < nodes, stays=True) for n in range(nodes + others)}
    found = daemon_sets.bounds(world.view(kinds.DAEMON_SET, "agent"), by_node)
    up, most = math.ceil(exact(surge, nodes)), math.ceil(exact(unavailable, nodes))
    assert found == (up, 1 if nodes and up == most == 0 else most)


@pytest.mark.parametrize(
    ("size", "value", "at_once"), [(5, "20%", 1), (5, "39%", 1), (5, "40%", 2), (5, "1%", 1), (5, 3, 3), (5, None, 1)]
)
def test_a_stateful_set_rounds_down_and_takes_one_at_least(size: int, value: Any, at_once: int) -> None:
    world = World()
    rolling = {"partition": 0, **({"maxUnavailable": value} if value is not None else {})}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    world.create(stateful_set(size, podManagementPolicy="Parallel", updateStrategy=strategy))
    settle(world)
    template = stateful_set(size, image="db:2")["spec"]["template"]
    world.patch(kinds.STATEFUL_SET, "db", {"spec": {"template": template}})
    revisions, owner = world.views(kinds.CONTROLLER_REVISION), world.view(kinds.STATEFUL_SET, "db")
    for _ in range(3):  # The new revision is recorded first.
        plan = stateful_sets.plan(owner, world.pods(), [], revisions, world.now)
        gone = [action.name for action in plan.actions if isinstance(action, Delete)]
        if gone:
            break
        world.apply(plan.actions)
        revisions, owner = world.views(kinds.CONTROLLER_REVISION), world.view(kinds.STATEFUL_SET, "db")
    assert gone == [f"db-{size - 1 - n}" for n in range(at_once)]


@given(st.sampled_from(["minAvailable", "maxUnavailable"]), amounts, st.integers(0, 20))
def test_a_budget_rounds_up_both_what_must_stay_and_what_may_go(field: str, value: int | str, expected: int) -> None:
    world = World()
    world.create(budget(**{field: value}))
    make_pods(world, 3)
    plan = disruption.plan(world.view(kinds.POD_DISRUPTION_BUDGET, "b"), world.pods(), expected, world.now)
    world.apply(plan.actions)
    status = world.view(kinds.POD_DISRUPTION_BUDGET, "b").status
    rounded = math.ceil(exact(value, expected))
    by_count = field == "minAvailable" and isinstance(value, int)
    wanted = rounded if field == "minAvailable" else max(0, expected - rounded)
    assert status["desiredHealthy"] == wanted
    assert status["expectedPods"] == (3 if by_count else expected)
    assert status["disruptionsAllowed"] == (max(0, 3 - wanted) if status["expectedPods"] else 0)
