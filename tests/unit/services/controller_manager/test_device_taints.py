"""Evictions from devices: which taints count and for how long they are borne; what a rule's status says of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from services.controller_manager.controllers.device_taint_eviction import plan as planner
from services.controller_manager.controllers.device_taint_eviction import rule_status
from services.controller_manager.controllers.device_taint_eviction.rule_status import Extent
from services.controller_manager.views.devices import Device, DeviceTaintRule, ResourceClaim

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rule(effect: str = "NoExecute", selector: Any = None, conditions: Any = (), **taint: Any) -> DeviceTaintRule:
    raw = {
        "metadata": {"name": "r", "uid": "r-uid", "generation": 2},
        "spec": {"deviceSelector": selector, "taint": {"key": "k", "effect": effect, **taint}},
        "status": {"conditions": list(conditions)},
    }
    return msgspec.convert(raw, DeviceTaintRule)


def evicted(rules: list[DeviceTaintRule], *tolerations: dict[str, Any], taints: Any = ()) -> Any:
    result = {"driver": "d.io", "pool": "p", "device": "d0", "tolerations": list(tolerations)}
    claim = msgspec.convert({"status": {"allocation": {"devices": {"results": [result]}}}}, ResourceClaim)
    device = msgspec.convert({"name": "d0", "taints": list(taints)}, Device)
    found = planner.eviction_of([claim], lambda _: device, rules, lambda taint: NOW)
    return found and ((found.moment - NOW).total_seconds(), sorted(found.rules))


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ({}, True), (None, False), ({"driver": "d.io"}, True), ({"driver": "e.io"}, False), ({"pool": "p"}, True),
        ({"pool": "q"}, False), ({"device": "d0"}, True), ({"device": "d1"}, False),
        ({"driver": "d.io", "pool": "p", "device": "d0"}, True),
        ({"driver": "d.io", "pool": "p", "device": "d"}, False),
    ],
)  # fmt: skip
def test_a_rule_is_about_the_devices_that_all_of_its_selector_names(selector: Any, meant: bool) -> None:
    assert (evicted([rule(selector=selector)]) == (0, ["r-uid"])) is meant
    assert (evicted([rule(selector=selector)]) is None) is not meant


def test_only_no_execute_evicts_and_only_tolerations_of_that_effect_keep() -> None:
    assert evicted([rule("NoSchedule", {}), rule("None", {}), rule("Novel", {})]) is None
    assert evicted([rule(selector={})], {"operator": "Exists"}) == (0, ["r-uid"])
    assert evicted([rule(selector={})], {"operator": "Exists", "effect": "NoExecute"}) is None
    assert evicted([rule(selector={})], {"operator": "Exists", "effect": "NoExecute", "key": "other"}) == (0, ["r-uid"])


def test_the_shortest_patience_with_any_taint_counts() -> None:
    added = (NOW + timedelta(seconds=100)).isoformat()
    bears = [
        {"operator": "Exists", "effect": "NoExecute", "key": "k", "tolerationSeconds": 30},
        {"operator": "Exists", "effect": "NoExecute", "key": "k", "tolerationSeconds": 50},
        {"operator": "Exists", "effect": "NoExecute", "key": "own", "tolerationSeconds": 7},
    ]
    own = {"key": "own", "effect": "NoExecute"}
    assert evicted([rule(selector={}, timeAdded=added)], *bears) == (130, ["r-uid"])
    assert evicted([], *bears, taints=[own]) == (7, [])
    assert evicted([rule(selector={}, timeAdded=added)], *bears, taints=[own]) == (7, ["r-uid"])
    assert evicted(
        [], {"operator": "Equal", "effect": "NoExecute", "key": "own", "tolerationSeconds": -1}, taints=[own]
    )


@pytest.mark.parametrize(
    ("effect", "extent", "said"),
    [
        ("NoExecute", Extent(), ("False", "NotStarted", "")),
        ("NoExecute", Extent(1, 1), ("True", "PodsPendingEviction", "1 pod needs to be evicted in 1 namespace.")),
        (
            "NoExecute", Extent(3, 2, evicted=1),
            ("True", "PodsPendingEviction",
             "3 pods need to be evicted in 2 different namespaces. 1 pod evicted since starting the controller."),
        ),
        ("NoExecute", Extent(evicted=2), ("False", "Completed", "2 pods evicted since starting the controller.")),
        ("NoSchedule", Extent(), ("False", "OtherEffect", "Eviction only happens for the NoExecute effect.")),
    ],
)  # fmt: skip
def test_the_status_says_how_far_it_is(effect: str, extent: Extent, said: tuple[str, str, str]) -> None:
    plan = rule_status.plan(rule(effect), extent, NOW)
    (patch,) = plan.actions
    (condition,) = patch.patch["status"]["conditions"]
    assert (condition["status"], condition["reason"], condition["message"]) == said
    assert (condition["type"], condition["observedGeneration"]) == ("EvictionInProgress", 2)
    assert (plan.requeue_after is None) == (extent.pods == 0)
    again = rule_status.plan(rule(effect, conditions=[condition]), extent, NOW)
    assert again.actions == []
    assert rule_status.wait_seconds(rule(effect, conditions=[condition]), NOW + timedelta(seconds=4)) == 6
    assert rule_status.wait_seconds(rule(effect, conditions=[{**condition, "observedGeneration": 1}]), NOW) == 0


def test_what_an_effect_would_do_is_told_once() -> None:
    assert not rule_status.is_final(rule("None"))
    (patch,) = rule_status.plan(rule("None"), Extent(2, 1, 4, 1), NOW).actions
    (condition,) = patch.patch["status"]["conditions"]
    assert condition["reason"] == "NoEffect"
    assert condition["message"].startswith(
        "4 published devices selected. 1 allocated device selected. 2 pods would be evicted in 1 namespace if the"
    )
    assert rule_status.is_final(rule("None", conditions=[condition]))
    assert not rule_status.is_final(rule("NoExecute", conditions=[condition]))
