"""NodeResourcesFit: what the pod requests must be free; and how full a node should become, by one of three strategies.

LeastAllocated prefers empty nodes, MostAllocated full ones, RequestedToCapacityRatio follows a given curve.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from services.scheduler.cluster_state import CPU, MEMORY, PODS, ClusterState
from services.scheduler.columns import Array
from services.scheduler.devices.extended import IMPLICIT
from services.scheduler.framework import MAX_SCORE, ClusterEvent, Hint, Plugin, Rows
from services.scheduler.objects import Node
from services.scheduler.pod_info import PodInfo, amount

_REASONS_MAX = 63


class _Data:
    """The pod's requests by resource index, and the same as scores count them."""

    def __init__(
        self,
        pod: PodInfo,
        state: ClusterState,
        scored: Sequence[tuple[str, int]],
        ignored: frozenset[str],
        backed: Collection[str] = (),
    ) -> None:
        wanted = [(name, value) for name, value in pod.requests.items() if value > 0 and not _ignored(name, ignored)]
        self.names = [name for name, _ in wanted][:_REASONS_MAX]
        self.indices = np.array([state.resource(name) for name in self.names], dtype=np.intp)
        self.needs = np.array([[pod.requests[name]] for name in self.names], dtype=np.int64)
        self.bits = [np.uint64(1 << i) for i in range(len(self.names))]
        # Extended resources that devices stand behind: where the node offers none itself, DynamicResources decides.
        self.backed = np.array([[name in backed] for name in self.names], dtype=bool) if backed else None
        counted = [entry for entry in (_scored(pod, state, name, weight) for name, weight in scored) if entry]
        self.scored_needs = np.array([[need] for _, need, _ in counted], dtype=np.int64).reshape(-1, 1)
        self.weights = np.array([[weight] for _, _, weight in counted], dtype=np.int64).reshape(-1, 1)
        self.scored_indices = np.array([index for index, _, _ in counted], dtype=np.intp)
        # The usual case, cpu and memory with equal weight, needs no index arrays.
        self.plain = [(index, weight) for index, _, weight in counted] == [(CPU, 1), (MEMORY, 1)]


def _scored(pod: PodInfo, state: ClusterState, name: str, weight: int) -> tuple[int, int, int] | None:
    """(index, need, weight) of a resource that scores; extended ones score only for pods that ask for them."""
    index = state.resource(name)
    if index in (CPU, MEMORY):
        return index, (pod.cpu_scored, pod.memory_scored)[index], weight
    need = pod.requests.get(name)
    return (index, need, weight) if need else None


def _ignored(name: str, ignored: frozenset[str]) -> bool:
    return name in ignored or name.partition("/")[0] in ignored


class NodeResourcesFit(Plugin):
    """Arguments.

    `scoringStrategy` {type, resources, requestedToCapacityRatio.shape}, `ignoredResources`, `ignoredResourceGroups`.
    """

    local = True
    preemptible = True

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        strategy = self.arguments.get("scoringStrategy") or {}
        self.strategy = strategy.get("type", "LeastAllocated")
        resources = strategy.get("resources") or [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]
        self.scored = [(entry["name"], int(entry.get("weight") or 1)) for entry in resources]
        shape = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or []
        self.shape = sorted((float(p["utilization"]), float(p["score"]) * MAX_SCORE / 10) for p in shape)
        if self.strategy not in ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"):
            raise ValueError(
                f"scoringStrategy.type: {self.strategy!r} is not LeastAllocated, MostAllocated "
                "or RequestedToCapacityRatio"
            )
        if self.strategy == "RequestedToCapacityRatio" and not self.shape:
            raise ValueError("scoringStrategy.requestedToCapacityRatio.shape: at least one point is required")
        self.ignored = frozenset(
            (self.arguments.get("ignoredResources") or []) + (self.arguments.get("ignoredResourceGroups") or [])
        )

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {
            # Any pod takes one of a node's places for pods.
            ClusterEvent("Pod", "Delete"): None,
            ClusterEvent("Pod", "Update"): _shrank,
            ClusterEvent("Node", "Add"): self._could_hold,
            ClusterEvent("Node", "Update"): self._holds_more,
            ClusterEvent("DeviceClass", "Add"): _offers,
            ClusterEvent("DeviceClass", "Update"): _offers,
        }

    def prepare(self, pod: PodInfo, state: ClusterState) -> _Data:
        return _Data(pod, state, self.scored, self.ignored, self._backed(pod))

    def _backed(self, pod: PodInfo) -> Collection[str]:
        devices = getattr(self.handle, "devices", None)
        return devices.backed(pod.requests) if devices is not None else ()

    def filter(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        # Two index arrays would be paired; a column of indices against a row of rows makes the grid that is meant.
        indices = data.indices if isinstance(rows, slice) else data.indices[:, None]
        short = state.allocatable[indices, rows] - state.requested[indices, rows] < data.needs
        if data.backed is not None:
            short &= ~(data.backed & (state.allocatable[indices, rows] == 0))
        out = np.zeros(short.shape[1], dtype=np.uint64)
        if short.any():
            for bit, lacking in zip(data.bits, short, strict=True):
                out |= lacking * bit
        return out

    def reasons(self, data: _Data, state: ClusterState) -> Sequence[str]:
        return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in data.names]

    def remedy(self, data: _Data, state: ClusterState, row: int) -> str:
        parts = []
        for at, (name, index, need) in enumerate(zip(data.names, data.indices, data.needs[:, 0], strict=True)):
            if data.backed is not None and data.backed[at, 0] and state.allocatable[index, row] == 0:
                continue
            free = int(state.allocatable[index, row] - state.requested[index, row])
            if free >= need:
                continue
            if index == PODS:
                parts.append("another pod leaves the node")
            elif int(state.allocatable[index, row]) == 0:
                parts.append(f"the node offers {name}")
            else:
                parts.append(f"the {name} request is ≤ {_in_words(name, max(0, free))}")
        return f"fits on {state.name(row)} if {' and '.join(parts)}" if parts else ""

    def score(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        if data.plain:
            capacity = state.allocatable[:2, rows]
            used = state.scored[:, rows] + data.scored_needs
        else:
            indices = data.scored_indices if isinstance(rows, slice) else data.scored_indices[:, None]
            capacity = state.allocatable[indices, rows]
            # cpu and memory are counted with defaults for containers that request none.
            load = np.concatenate((state.scored, state.requested[2:]))
            used = load[indices, rows] + data.scored_needs
        present = capacity > 0
        if present.all():
            scores = self._one(used, capacity)
            if data.plain:
                return (scores[0] + scores[1]) // 2  # type: ignore[no-any-return]
            return (scores * data.weights).sum(axis=0) // max(1, int(data.weights.sum()))  # type: ignore[no-any-return]
        scores = self._one(used, np.where(present, capacity, 1)) * data.weights
        weights = np.where(present, data.weights, 0).sum(axis=0)
        return np.where(present, scores, 0).sum(axis=0) // np.maximum(weights, 1)  # type: ignore[no-any-return]

    def _one(self, used: Array, capacity: Array) -> Array:
        """Each resource's score, 0..100."""
        if self.strategy == "LeastAllocated":
            return np.maximum(capacity - used, 0) * MAX_SCORE // capacity  # type: ignore[no-any-return]
        if self.strategy == "MostAllocated":
            return np.minimum(used, capacity) * MAX_SCORE // capacity
        utilization = np.where(used > capacity, 100.0, used * 100 / capacity)
        return np.interp(utilization, [x for x, _ in self.shape], [y for _, y in self.shape]).astype(np.int64)

    # --- hints --------------------------------------------------------------------------------------------------------

    def _could_hold(self, pod: PodInfo, old: Node | None, new: Node | None) -> bool:
        if new is None:
            return False
        offered, backed = new.status.allocatable or {}, self._backed(pod)
        return all(
            name in offered and amount(name, offered[name]) >= value
            for name, value in pod.requests.items()
            if value > 0 and not _ignored(name, self.ignored) and not (name in backed and name not in offered)
        )

    def _holds_more(self, pod: PodInfo, old: Node | None, new: Node | None) -> bool:
        if old is None or new is None:
            return True
        before, after = old.status.allocatable or {}, new.status.allocatable or {}
        grew = any(
            amount(name, text) > (amount(name, before[name]) if name in before else 0)
            for name, text in after.items()
            if pod.requests.get(name)
        )
        return grew and self._could_hold(pod, old, new)


def _in_words(resource: str, value: int) -> str:
    if resource == "cpu":
        return f"{value}m"
    if resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-"):
        return f"{value // (1024 * 1024)}Mi"
    return str(value)


def _offers(pod: PodInfo, old: Any, new: Any) -> bool:
    """Whether a class of devices now stands behind an extended resource that the pod requests."""
    if new is None:
        return False
    names = {IMPLICIT + new.metadata.name} if old is None else set()
    name = new.spec.extendedResourceName
    if name and (old is None or old.spec.extendedResourceName != name):
        names.add(name)
    return any(name in pod.requests for name in names)


def _shrank(pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    """Whether a running pod was resized to less of something that this one needs."""
    if old is None or new is None:
        return True
    return any(value > new.requests.get(name, 0) and pod.requests.get(name) for name, value in old.requests.items())
