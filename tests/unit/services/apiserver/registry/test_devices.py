"""Since when a taint of a device counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from services.apiserver.registry.devices import SliceStrategy, TaintRuleStrategy

LONG_AGO = "2020-01-01T00:00:00Z"


def written(strategy: Any, spec: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    ctx = SimpleNamespace(obj={"metadata": {}, "spec": spec}, old=old and {"metadata": {}, "spec": old}, subresource="")
    ctx.metadata = ctx.obj["metadata"]
    (strategy.prepare_update if old else strategy.prepare_create)(ctx)
    return ctx.obj["spec"]  # type: ignore[no-any-return]


def test_a_rule_counts_from_its_creation_and_anew_when_its_effect_changes() -> None:
    strategy = TaintRuleStrategy(has_status=True)
    made = written(strategy, {"taint": {"key": "k", "effect": "NoSchedule"}})
    assert made["taint"]["timeAdded"] > LONG_AGO
    old = {"taint": {"key": "k", "effect": "NoSchedule", "timeAdded": LONG_AGO}}
    same = {"taint": {"key": "k", "value": "v", "effect": "NoSchedule", "timeAdded": LONG_AGO}}
    assert written(strategy, same, old)["taint"]["timeAdded"] == LONG_AGO
    changed = {"taint": {"key": "k", "effect": "NoExecute", "timeAdded": LONG_AGO}}
    assert written(strategy, changed, old)["taint"]["timeAdded"] > LONG_AGO
    set_too = {"taint": {"key": "k", "effect": "NoExecute", "timeAdded": "2019-01-01T00:00:00Z"}}
    assert written(strategy, set_too, old)["taint"]["timeAdded"] == "2019-01-01T00:00:00Z"


def test_a_drivers_taint_counts_from_when_it_was_written() -> None:
    taints = [{"key": "a", "effect": "NoExecute"}, {"key": "b", "effect": "NoExecute", "timeAdded": LONG_AGO}]
    (device,) = written(SliceStrategy(), {"devices": [{"name": "d", "taints": taints}]})["devices"]
    assert device["taints"][0]["timeAdded"] > LONG_AGO
    assert device["taints"][1]["timeAdded"] == LONG_AGO
