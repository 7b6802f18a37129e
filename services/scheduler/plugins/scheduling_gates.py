"""SchedulingGates: a pod with gates is not scheduled, and costs nothing, until the last one is removed."""

from __future__ import annotations

from services.scheduler.framework import ClusterEvent, Hint, Plugin
from services.scheduler.pod_info import PodInfo


class SchedulingGates(Plugin):
    """spec.schedulingGates."""

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        gates = [gate.name for gate in pod.pod.spec.schedulingGates or ()]
        return f"waiting for scheduling gates: [{' '.join(gates)}]" if gates else None

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {}
