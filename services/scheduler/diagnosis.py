"""Why a pod fits nowhere, in upstream's words, which people and tools look for."""

from __future__ import annotations

from collections import Counter

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import ALL_BITS, Plugin, has
from services.scheduler.pod_info import PodInfo
from services.scheduler.profile import Profile

NO_NODES = "no nodes available to schedule pods"


class Diagnosis:
    """What refused a pod on every node.

    `candidates` are the rows where evicting pods may help; `plugins` those that refused, whose events wake the pod.
    """

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.reasons: Counter[str] = Counter()
        self.plugins: dict[str, None] = {}
        self.candidates: Array = np.zeros(0, dtype=bool)
        self.preemption = ""
        # Victims of an earlier preemption for this pod are still on their way out.
        self.victims_leaving = False

    @property
    def message(self) -> str:
        """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: …`."""
        if not self.nodes:
            return NO_NODES
        text = available(self.nodes, self.reasons)
        return f"{text} {self.preemption}" if self.preemption else text


def available(nodes: int, reasons: Counter[str]) -> str:
    """The sentence of upstream's FitError; reasons are sorted as their texts with the number before them."""
    parts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{nodes} nodes are available" + (f": {', '.join(parts)}." if parts else ".")


def diagnose(pod: PodInfo, state: ClusterState, profile: Profile) -> Diagnosis:
    """Ask each filter again, and count. Raises PluginError."""
    diagnosis = Diagnosis(state.node_count)
    judgement = profile.judge(pod, state, score=False)
    diagnosis.candidates = np.zeros(state.size, dtype=bool)
    if judgement.rejected is not None:
        plugin, reason = judgement.rejected
        diagnosis.plugins[plugin.name] = None
        diagnosis.reasons[reason] = state.node_count
        return diagnosis
    candidates = state.valid[: state.size].copy()
    for plugin, data, bits in profile.verdicts(pod, state):
        if not bits.any():
            continue
        diagnosis.plugins[plugin.name] = None
        count_reasons(plugin, data, bits, state, diagnosis.reasons)
        hopeless = plugin.unresolvable(data)
        candidates &= (bits == 0) if hopeless == ALL_BITS else (bits & np.uint64(hopeless)) == 0
    diagnosis.candidates = candidates
    return diagnosis


def count_reasons(plugin: Plugin, data: object, bits: Array, state: ClusterState, into: Counter[str]) -> None:
    """Add how many rows each reason's bit is set for."""
    assert has(plugin, "filter")
    for number, reason in enumerate(plugin.reasons(data, state)):
        count = int(np.count_nonzero(bits & np.uint64(1 << number)))
        if count:
            into[reason] += count


def reasons_of(plugin: Plugin, data: object, bits: int, state: ClusterState) -> list[str]:
    """The reasons whose bits are set."""
    return [reason for number, reason in enumerate(plugin.reasons(data, state)) if bits >> number & 1]
