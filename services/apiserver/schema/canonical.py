"""Quantities and times as the server writes them, and nulls dropped, over plain dicts in place.

Each definition gets a plan once: the fields under which a quantity or a time can stand. A write walks only those.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable
from typing import Any

from machinery.api.quantity import parse_quantity
from services.apiserver.schema import definitions
from services.apiserver.schema.definitions import KindLike, Node


@functools.lru_cache(maxsize=8192)
def quantity(text: str | int | float) -> str:
    """The canonical form of a quantity: `1000m` is `1`, `1024Mi` is `1Gi`, `1.5` is `1500m`. ValueError if it isn't
    one.
    """
    return str(parse_quantity(text))


def time(text: str) -> str:
    """A metav1.Time: UTC, whole seconds."""
    if len(text) == 20 and text[-1] == "Z" and text[10] == "T":
        return text
    return _parse_time(text).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(text: str) -> str:
    """A metav1.MicroTime: UTC, six fractional digits."""
    if len(text) == 27 and text[-1] == "Z" and text[19] == ".":
        return text
    return _parse_time(text).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parse_time(text: str) -> datetime.datetime:
    head, dot, fraction = text.upper().partition(".")
    if dot:
        digits = re.match(r"\d+", fraction)
        width = digits.end() if digits else 0
        text = f"{head}.{fraction[:width][:6].ljust(6, '0')}{fraction[width:]}"
    return datetime.datetime.fromisoformat(text.upper()).astimezone(datetime.UTC)


def bytes_text(text: str) -> str:
    """Base64 without the line breaks that it may come with (RFC 2045)."""
    return text.replace("\n", "").replace("\r", "") if "\n" in text or "\r" in text else text


Leaf = Callable[[Any], str]
_LEAVES: dict[str, Leaf] = {"quantity": quantity, "time": time, "micro-time": micro_time, "bytes": bytes_text}


class _Plan:
    """Where leaves to normalise stand below one object: `fields` directly, `maps` of leaves, and objects to go into."""

    __slots__ = ("leaves", "lists", "maps", "objects", "open_maps")

    def __init__(self) -> None:
        self.leaves: list[tuple[str, Leaf]] = []
        self.maps: list[tuple[str, Leaf]] = []
        self.objects: list[tuple[str, _Plan]] = []
        self.lists: list[tuple[str, _Plan]] = []
        self.open_maps: list[tuple[str, _Plan]] = []

    def __bool__(self) -> bool:
        return bool(self.leaves or self.maps or self.objects or self.lists or self.open_maps)


_plans: dict[str, _Plan] = {}


def _plan(node: Node, stack: tuple[str, ...] = ()) -> _Plan:
    known = _plans.get(node.definition)
    if known is not None:
        return known
    plan = _Plan()
    if node.definition in stack or node.type != "object":
        return plan
    stack = (*stack, node.definition)
    for name, field in node.fields.items():
        if field.type in _LEAVES:
            plan.leaves.append((name, _LEAVES[field.type]))
        elif field.type == "map" and field.item.type in _LEAVES:
            plan.maps.append((name, _LEAVES[field.item.type]))
        elif field.type == "object" and (below := _plan(field, stack)):
            plan.objects.append((name, below))
        elif field.type == "array" and (below := _plan(field.item, stack)):
            plan.lists.append((name, below))
        elif field.type == "map" and (below := _plan(field.item, stack)):
            plan.open_maps.append((name, below))
    if node.definition:
        _plans[node.definition] = plan
    return plan


def _apply(plan: _Plan, obj: dict[str, Any]) -> None:
    for name, leaf in plan.leaves:
        value = obj.get(name)
        if value is not None:
            obj[name] = leaf(value)
    for name, leaf in plan.maps:
        values = obj.get(name)
        if values:
            for key, value in values.items():
                values[key] = leaf(value)
    for name, below in plan.objects:
        value = obj.get(name)
        if value:
            _apply(below, value)
    for name, below in plan.lists:
        for value in obj.get(name) or ():
            _apply(below, value)
    for name, below in plan.open_maps:
        for value in (obj.get(name) or {}).values():
            _apply(below, value)


def normalise(kind: KindLike, obj: dict[str, Any]) -> None:
    """Quantities and times of a structurally sound object of a built-in kind, in place."""
    name = definitions.definition_name(kind.group, kind.version, kind.kind)
    if name is None:
        return
    plan = _plans.get(name)
    if plan is None:
        plan = _plan(definitions.node_named(name))
    _apply(plan, obj)
