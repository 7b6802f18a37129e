"""Whether, and how fast, silent nodes may be emptied: judged by how much of their zone, and of the cluster, is silent.

The more of it is, the more likely the fault lies with what looks and not with what is looked at.
"""

from __future__ import annotations

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


class Health:
    """How many nodes of each zone are well and how many are not, kept as they change: each node is judged at least
    once a minute, and to count all of them for each takes seconds in a large cluster."""

    def __init__(self) -> None:
        # By node: its zone and whether it is well; and by zone (well, not well).
        self._nodes: dict[str, tuple[str, bool]] = {}
        self.unwell: set[str] = set()
        self._counts: dict[str, tuple[int, int]] = {}

    def set(self, name: str, node: Node | None) -> None:
        """The node is as it is now, or gone."""
        before = self._nodes.pop(name, None)
        self.unwell.discard(name)
        if before is not None:
            self._add(*before, -1)
        if node is not None:
            ready = condition(node.status.conditions, "Ready")
            after = self._nodes[name] = (zone(node), ready is not None and ready.status == "True")
            self._add(*after, 1)
            if not after[1]:
                self.unwell.add(name)

    def _add(self, name: str, well: bool, sign: int) -> None:
        good, bad = self._counts.get(name, (0, 0))
        counts = (good + sign, bad) if well else (good, bad + sign)
        if any(counts):
            self._counts[name] = counts
        else:
            del self._counts[name]

    def eviction_pace(self) -> dict[str, float] | None:
        """For each zone in which pods may be evicted, the seconds between two nodes. None if no node at all is well.

        A zone without a single node that is well goes at the full pace as long as another one has some: a zone can be
        lost as a whole. A small zone most of whose nodes are silent waits.
        """
        if self._counts and not any(good for good, _ in self._counts.values()):
            return None
        pace = {}
        for name, (good, bad) in self._counts.items():
            partly = good > 0 and bad >= _UNHEALTHY_MIN and bad / (good + bad) >= _UNHEALTHY_FRACTION
            if not partly:
                pace[name] = EVICTION_INTERVAL_SECONDS
            elif good + bad > _LARGE_ZONE:
                pace[name] = _SLOW_INTERVAL_SECONDS
        return pace
