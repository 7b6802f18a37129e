"""Whether, and how fast, silent nodes may be emptied: judged by how much of their zone, and of the cluster, is silent.

The more of it is, the more likely the fault lies with what looks and not with what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.controller_manager.views.meta import condition
from services.controller_manager.views.pod import Node

REGION_LABEL = "topology.kubernetes.io/region"
ZONE_LABEL = "topology.kubernetes.io/zone"

# No more than one node of a zone in ten seconds gets its pods evicted; in a large zone most of which is silent, one in
# a hundred.
EVICTION_INTERVAL_SECONDS = 10.0
_SLOW_INTERVAL_SECONDS = 100.0
_LARGE_ZONE = 50
_UNHEALTHY_FRACTION = 0.55
_UNHEALTHY_MIN = 3


def zone(node: Node) -> str:
    """The zone whose nodes are likely to fail together."""
    labels = node.metadata.labels
    return f"{labels.get(REGION_LABEL, '')}:{labels.get(ZONE_LABEL, '')}"


def eviction_pace(nodes: Iterable[Node]) -> dict[str, float] | None:
    """For each zone in which pods may be evicted, the seconds between two nodes. None if no node at all is well.

    A zone without a single node that is well goes at the full pace as long as another one has some: a zone can be lost
    as a whole. A small zone most of whose nodes are silent waits.
    """
    counts: dict[str, tuple[int, int]] = {}
    for node in nodes:
        ready = condition(node.status.conditions, "Ready")
        healthy = ready is not None and ready.status == "True"
        good, bad = counts.get(zone(node), (0, 0))
        counts[zone(node)] = (good + healthy, bad + (not healthy))
    if counts and not any(good for good, _ in counts.values()):
        return None
    pace = {}
    for name, (good, bad) in counts.items():
        partly = good > 0 and bad >= _UNHEALTHY_MIN and bad / (good + bad) >= _UNHEALTHY_FRACTION
        if not partly:
            pace[name] = EVICTION_INTERVAL_SECONDS
        elif good + bad > _LARGE_ZONE:
            pace[name] = _SLOW_INTERVAL_SECONDS
    return pace
