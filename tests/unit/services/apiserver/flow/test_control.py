"""Requests that wait on the loop, and the standard objects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from machinery.api import errors, kinds
from services.apiserver.flow import control, standard
from services.apiserver.flow.control import Flow, FlowControl
from services.apiserver.flow.upkeep import corrected, verdict
from services.apiserver.request import User
from services.apiserver.schema import defaults, validate

JANE = User("jane", groups=("system:authenticated",))
NODE = User("system:node:n1", groups=("system:nodes", "system:authenticated"))


def started(seats: int = 49) -> FlowControl:
    flow = FlowControl(seats)
    flow.configure(standard.schemas(), standard.levels())
    return flow


def of(flow: FlowControl, user: User) -> Flow:
    return flow.classify(user, "get", "", "pods", "", "default", "/api/v1/pods")


async def test_one_turn_of_the_loop_runs_what_there_are_seats_for() -> None:
    flow = started()
    jane = of(flow, JANE)
    ran = 0
    while flow.enter(jane, 1):
        ran += 1
        flow.leave(jane, 1)
        assert ran < 100
    waiting = asyncio.create_task(flow.wait(jane, JANE, "", 1))
    node = of(flow, NODE)
    assert flow.enter(node, 1), "others have their own seats"
    flow.leave(node, 1)
    await asyncio.wait_for(waiting, 5)
    flow.leave(jane, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert flow.enter(jane, 1), "every seat is back"


async def test_who_is_cancelled_or_waits_too_long_takes_no_seat(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = started()
    jane = of(flow, JANE)
    while flow.enter(jane, 1):
        pass
    used = jane.level.in_use
    waiting = asyncio.create_task(flow.wait(jane, JANE, "", 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    monkeypatch.setattr(control, "WAIT_SECONDS_MAX", 0.01)
    with pytest.raises(errors.TooManyRequests) as refused:
        await flow.wait(jane, JANE, "", 1)
    assert refused.value.retry_after_seconds == 1
    assert (jane.level.in_use, jane.level.waiting) == (used, 0)


def test_a_schema_without_its_level_is_passed_over_and_mandatory_ones_are_always_there() -> None:
    flow = FlowControl()
    assert of(flow, JANE).schema == "catch-all"
    flow.configure(standard.schemas(), [level for level in standard.levels() if level["metadata"]["name"] != "system"])
    assert of(flow, JANE).schema == "global-default"
    assert of(flow, NODE).schema == "global-default"
    assert verdict(standard.schemas()[2], {"global-default"})[:2] == ("True", "NotFound")


def test_the_standard_objects_are_valid_and_whole() -> None:
    for obj in standard.objects():
        kind = kinds.FLOW_SCHEMA if obj["kind"] == "FlowSchema" else kinds.PRIORITY_LEVEL_CONFIGURATION
        spec = dict(obj["spec"])
        defaults.apply_defaults(kind, obj)
        assert obj["spec"] == spec, "defaults would make every look see a difference"
        assert validate.validate_create(kind, obj) == []


def test_standard_objects_are_corrected_unless_somebody_wants_to_keep_a_change() -> None:
    wanted = next(obj for obj in standard.levels() if obj["metadata"]["name"] == "system")
    changed: dict[str, Any] = {**wanted, "spec": {"type": "Limited", "limited": {}}}
    assert corrected(dict(changed), wanted)
    kept = {**changed, "metadata": {"name": "system", "annotations": {standard.AUTOUPDATE: "false"}}}
    assert not corrected(kept, wanted)
    exempt = standard.levels()[0]
    shares = {**exempt, "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 3}}}
    assert not corrected(shares, exempt)


def queuing(queues: int, hand_size: int) -> dict[str, Any]:
    response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand_size}}
    return {"type": "Limited", "limited": {"limitResponse": response}}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}, []),
        ({"type": "Exempt"}, ["spec.type"]),
        ({"type": "Limited"}, ["spec.limited"]),
        (queuing(4, 5), ["spec.limited.limitResponse.queuing.handSize"]),
        (queuing(9999, 9), ["spec.limited.limitResponse.queuing.handSize"]),
    ],
)
def test_levels_are_judged(spec: dict[str, Any], fields: list[str]) -> None:
    obj = {"apiVersion": standard.API_VERSION, "kind": "PriorityLevelConfiguration", "metadata": {"name": "x"}}
    obj["spec"] = spec
    defaults.apply_defaults(kinds.PRIORITY_LEVEL_CONFIGURATION, obj)
    found = validate.validate_create(kinds.PRIORITY_LEVEL_CONFIGURATION, obj)
    assert [cause.field for cause in found] == fields


def test_schemas_are_judged() -> None:
    obj = standard.schemas()[-1]
    obj["metadata"] = {"name": "x"}
    obj["spec"]["matchingPrecedence"] = 1
    obj["spec"]["priorityLevelConfiguration"] = {"name": ""}
    rule = obj["spec"]["rules"][0]
    rule["subjects"] = [{"kind": "User", "group": {"name": "g"}}]
    rule["resourceRules"][0]["verbs"] = ["look"]
    found = [cause.field for cause in validate.validate_create(kinds.FLOW_SCHEMA, obj)]
    assert set(found) == {
        "spec.matchingPrecedence",
        "spec.priorityLevelConfiguration.name",
        "spec.rules[0].subjects[0].group",
        "spec.rules[0].subjects[0].user",
        "spec.rules[0].resourceRules[0].verbs",
    }
