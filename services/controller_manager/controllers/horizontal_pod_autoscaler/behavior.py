"""How fast a scale may move: stabilization windows and rate policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from machinery.api.quantity import parse_quantity
from services.controller_manager.controllers.horizontal_pod_autoscaler.replicas import Tolerance

DOWN_WINDOW_SECONDS = 300
_UP_DEFAULT = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN_DEFAULT = {
    "stabilizationWindowSeconds": DOWN_WINDOW_SECONDS,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


@dataclass(slots=True)
class Memory:
    """What an autoscaler remembers: (when, how many) it recommended, and by how much it changed the scale."""

    recommendations: list[tuple[datetime, int]] = field(default_factory=list)
    changes: list[tuple[datetime, int]] = field(default_factory=list)

    def begin(self, current: int, now: datetime) -> None:
        """A scale that is met for the first time was right so far: a restart of this process must not shrink at once
        what a window would have held."""
        if not self.recommendations:
            self.recommendations.append((now, current))

    def forget(self, before: datetime) -> None:
        """Drop what no window reaches any more."""
        self.recommendations = [entry for entry in self.recommendations if entry[0] >= before]
        self.changes = [entry for entry in self.changes if entry[0] >= before]


@dataclass(frozen=True, slots=True)
class Limited:
    """The number of replicas after all limits.

    `stabilized` and `limit` are (reason, message) of conditions, if one held.
    """

    replicas: int
    stabilized: tuple[str, str] | None
    limit: tuple[str, str]


def rules(spec: dict[str, Any], direction: str) -> dict[str, Any]:
    """The rules for scaleUp or scaleDown, with defaults where the user said nothing."""
    default = _UP_DEFAULT if direction == "scaleUp" else _DOWN_DEFAULT
    given = (spec.get("behavior") or {}).get(direction) or {}
    return {**default, **{name: value for name, value in given.items() if value is not None}}


def tolerance(spec: dict[str, Any]) -> Tolerance:
    """How far a metric may be off its target (KEP 4951)."""
    given = {name: rules(spec, rule).get("tolerance") for name, rule in (("up", "scaleUp"), ("down", "scaleDown"))}
    return Tolerance(
        **{name: parse_quantity(text).milli_value / 1000 for name, text in given.items() if text is not None}
    )


def limit(spec: dict[str, Any], current: int, wanted: int, memory: Memory, now: datetime) -> Limited:
    """Hold `wanted` against windows, rates, minimum and maximum. Remembers the recommendation."""
    up, down = rules(spec, "scaleUp"), rules(spec, "scaleDown")
    memory.recommendations.append((now, wanted))
    stable, stabilized = _stabilize(up, down, current, wanted, memory, now)
    minimum, maximum = spec.get("minReplicas") or 1, spec["maxReplicas"]
    if stable > current:
        allowed = max(current, _allowed_up(up, current, memory.changes, now))
        ceiling, reason = min(allowed, maximum), "ScaleUpLimit"
        if stable > ceiling:
            if maximum <= allowed:
                text = "the desired replica count is more than the maximum replica count"
                return Limited(max(ceiling, minimum), stabilized, ("TooManyReplicas", text))
            text = "the desired replica count is increasing faster than the maximum scale rate"
            return Limited(max(ceiling, minimum), stabilized, (reason, text))
    elif stable < current:
        allowed = min(current, _allowed_down(down, current, memory.changes, now))
        floor = max(allowed, minimum)
        if stable < floor:
            if minimum >= allowed:
                text = "the desired replica count is less than the minimum replica count"
                return Limited(min(floor, maximum), stabilized, ("TooFewReplicas", text))
            text = "the desired replica count is decreasing faster than the maximum scale rate"
            return Limited(min(floor, maximum), stabilized, ("ScaleDownLimit", text))
    if stable < minimum:
        return Limited(
            minimum, stabilized, ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
        )
    if stable > maximum:
        return Limited(
            maximum, stabilized, ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
        )
    return Limited(stable, stabilized, ("DesiredWithinRange", "the desired count is within the acceptable range"))


def _stabilize(
    up: dict[str, Any], down: dict[str, Any], current: int, wanted: int, memory: Memory, now: datetime
) -> tuple[int, tuple[str, str] | None]:
    def recent(rule: dict[str, Any]) -> list[int]:
        since = now - timedelta(seconds=rule.get("stabilizationWindowSeconds") or 0)
        return [wanted, *(replicas for at, replicas in memory.recommendations if at > since)]

    lowest, highest = min(recent(up)), max(recent(down))
    out = current
    out = max(out, lowest)
    out = min(out, highest)
    if out == wanted:
        return out, None
    if wanted > out:
        text = "recent recommendations were lower than current one, applying the lowest recent recommendation"
        return out, ("ScaleUpStabilized", text)
    text = "recent recommendations were higher than current one, applying the highest recent recommendation"
    return out, ("ScaleDownStabilized", text)


def _changed(changes: Sequence[tuple[datetime, int]], seconds: int, now: datetime, sign: int) -> int:
    since = now - timedelta(seconds=seconds)
    return sum(change * sign for at, change in changes if at > since and change * sign > 0)


def _allowed_up(rule: dict[str, Any], current: int, changes: Sequence[tuple[datetime, int]], now: datetime) -> int:
    if rule["selectPolicy"] == "Disabled":
        return current
    proposals: list[int] = []
    for policy in rule["policies"]:
        start = (
            current
            - _changed(changes, policy["periodSeconds"], now, 1)
            + _changed(changes, policy["periodSeconds"], now, -1)
        )
        if policy["type"] == "Pods":
            proposals.append(start + policy["value"])
        else:
            proposals.append(-(-start * (100 + policy["value"]) // 100))
    return min(proposals) if rule["selectPolicy"] == "Min" else max(proposals)


def _allowed_down(rule: dict[str, Any], current: int, changes: Sequence[tuple[datetime, int]], now: datetime) -> int:
    if rule["selectPolicy"] == "Disabled":
        return current
    proposals: list[int] = []
    for policy in rule["policies"]:
        start = (
            current
            + _changed(changes, policy["periodSeconds"], now, -1)
            - _changed(changes, policy["periodSeconds"], now, 1)
        )
        if policy["type"] == "Pods":
            proposals.append(start - policy["value"])
        else:
            proposals.append(start * (100 - policy["value"]) // 100)
    return max(proposals) if rule["selectPolicy"] == "Min" else min(proposals)
