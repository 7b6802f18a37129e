"""Endpoints shared out among zones by the CPU that the nodes of each have, for Services annotated
`service.kubernetes.io/topology-mode: Auto` (KEP-2433). Pure.

Each ready endpoint is meant for one zone, as a rule its own. A zone that has too few endpoints for its nodes gets some
of others, so that no endpoint has to bear more than a fifth above its share; where that can't be, there are no hints.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import NamedTuple

from machinery.api.quantity import parse_quantity
from services.controller_manager.views.meta import condition
from services.controller_manager.views.pod import Node

ZONE_LABEL = "topology.kubernetes.io/zone"
MODE = "service.kubernetes.io/topology-mode"
OLDER_MODE = "service.kubernetes.io/topology-aware-hints"
OVERLOAD_MAX = 0.2
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class Endpoint(NamedTuple):
    """A ready endpoint: the zone that it is in, and the one that it is meant for so far; empty: none."""

    zone: str
    meant_for: str = ""


def is_auto(annotations: Mapping[str, str]) -> bool:
    """Whether the Service asks for it. The older annotation counts first."""
    return annotations.get(OLDER_MODE, annotations.get(MODE, "")) in ("Auto", "auto")


class Zones:
    """The nodes' zones and what CPU each has, kept as nodes change."""

    def __init__(self) -> None:
        self.by_node: dict[str, str] = {}
        # Of the ready nodes that run pods: (zone, CPU in thousandths).
        self._working: dict[str, tuple[str, int]] = {}

    def set(self, name: str, node: Node | None) -> bool:
        """The node is as it is now, or gone. Whether that changes anything here."""
        before = self.by_node.pop(name, None), self._working.pop(name, None)
        if node is not None:
            labels = node.metadata.labels
            if zone := labels.get(ZONE_LABEL, ""):
                self.by_node[name] = zone
            ready = condition(node.status.conditions, "Ready")
            if ready is not None and ready.status == "True" and not any(label in labels for label in _CONTROL_PLANE):
                cpu = parse_quantity(node.status.allocatable.get("cpu", "0")).milli_value
                self._working[name] = (zone, cpu)
        return before != (self.by_node.get(name), self._working.get(name))

    def shares(self) -> dict[str, float] | None:
        """The part of all CPU that each zone has; None: not every node tells, or there are no two zones."""
        cpu: Counter[str] = Counter()
        for zone, milli in self._working.values():
            if not zone or milli <= 0:
                return None
            cpu[zone] += milli
        if len(cpu) < 2:
            return None
        total = sum(cpu.values())
        return {zone: milli / total for zone, milli in cpu.items()}


def apportion(endpoints: Mapping[str, Endpoint], shares: Mapping[str, float] | None) -> dict[str, str] | str:
    """The zone that each endpoint is meant for, by the endpoint's key; or why there is none.

    What endpoints are meant for already stays as long as no zone has too few for it.
    """
    count = len(endpoints)
    if shares is None:
        return "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
    numbers = f"({count} endpoints, {len(shares)} zones)"
    if len(shares) > count:
        return f"Insufficient number of endpoints {numbers}"
    least = {zone: math.ceil(share * count * (1 / (1 + OVERLOAD_MAX))) for zone, share in shares.items()}
    spare = count - sum(least.values())
    if spare < 0:
        return (
            f"Unable to allocate minimum required endpoints to each zone without exceeding overload threshold {numbers}"
        )
    if not all(endpoint.zone for endpoint in endpoints.values()):
        return "One or more endpoints do not have a zone specified"
    kept = {key: each.meant_for if each.meant_for in shares else each.zone for key, each in endpoints.items()}
    held = Counter(kept.values())
    if all(least[zone] <= held[zone] <= least[zone] + spare for zone in shares):
        return kept
    own = {key: endpoint.zone for key, endpoint in endpoints.items()}
    return _moved(own, {zone: max(share * count, least[zone]) for zone, share in shares.items()}, least)


def _moved(own: dict[str, str], wanted: Mapping[str, float], least: Mapping[str, int]) -> dict[str, str]:
    """Endpoints of zones that have more than wanted given to those that have less, one by one where it matters most.

    First each zone gets its least, and be it of one that has hardly more than wanted.
    """
    held = Counter(own.values())
    takers: dict[str, deque[str]] = defaultdict(deque)
    for taker in sorted(least):
        while held[taker] < least[taker]:
            spare = {zone: held[zone] - number for zone, number in wanted.items() if held[zone] > least[zone]}
            if not spare:
                break
            giver = _most(spare)
            takers[giver].append(taker)
            held[giver] -= 1
            held[taker] += 1
    over = {zone: held[zone] - number for zone, number in wanted.items() if held[zone] > number}
    under = {zone: number - held[zone] for zone, number in wanted.items() if held[zone] < number}
    while over and under:
        giver, taker = _most(over), _most(under)
        if max(over[giver], under[taker]) < 1 or min(over[giver], under[taker]) < 0.5:
            break
        takers[giver].append(taker)
        over[giver] -= 1
        under[taker] -= 1
    return {key: takers[zone].popleft() if takers[zone] else zone for key, zone in sorted(own.items())}


def _most(amounts: Mapping[str, float]) -> str:
    return max(sorted(amounts), key=lambda zone: amounts[zone])
