"""PodTopologySpread: keep pods even over zones, hosts, or whatever a node label names.

For each constraint the matching pods are counted per domain (the nodes with one value of the label). DoNotSchedule
refuses nodes whose domain would get more than `maxSkew` ahead of the emptiest one; ScheduleAnyway only scores. Pods
without constraints of their own are spread softly over hosts and zones together with the other pods of their Service
or controller.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from machinery.api.selectors import LabelSelector
from services.scheduler.cluster_state import ClusterState, Matches, PodCounter
from services.scheduler.columns import Array, Column, Lookup
from services.scheduler.framework import MAX_SCORE, SKIP, ClusterEvent, Hint, Plugin, Rows
from services.scheduler.objects import Node, SpreadConstraint
from services.scheduler.plugins.node_affinity import Required
from services.scheduler.plugins.taint_toleration import untolerated
from services.scheduler.pod_info import PodInfo
from services.scheduler.pod_terms import selector_of

REASON = "node(s) didn't match pod topology spread constraints"
REASON_NO_LABEL = "node(s) didn't match pod topology spread constraints (missing required label)"
HOSTNAME = "kubernetes.io/hostname"

SYSTEM_DEFAULTS = (
    SpreadConstraint(maxSkew=3, topologyKey=HOSTNAME, whenUnsatisfiable="ScheduleAnyway"),
    SpreadConstraint(maxSkew=5, topologyKey="topology.kubernetes.io/zone", whenUnsatisfiable="ScheduleAnyway"),
)
"""Upstream's defaultingType System."""

_CACHE_MAX = 128


class _Constraint:
    """A constraint of one pod, with what only depends on nodes worked out."""

    __slots__ = (
        "column", "counted", "counter", "eligible", "key", "matches", "max_skew", "min_domains", "present",
        "self_match",
    )  # fmt: skip

    column: Column
    counter: PodCounter
    # Under which key the state counts, and what: counters are looked up for each pod, because the state may drop one.
    counted: Hashable
    matches: Callable[[], Matches]
    eligible: Array
    present: Array
    key: str
    max_skew: int
    min_domains: int
    self_match: int

    def domains(self, state: ClusterState) -> Array:
        """Matching pods in each domain, on eligible nodes."""
        counts = np.where(self.eligible, self.counter.counts[: state.size], 0)
        # Rows without the label are never eligible; they are counted into a bin that is cut off.
        ids = self.column.ids[: state.size]
        bins = np.bincount(ids + 1, weights=counts, minlength=len(self.column.values) + 1)
        return bins[1:].astype(np.int64)


class _Static:
    """The constraints of pods of one signature, good until a node changes."""

    def __init__(self) -> None:
        self.nodes_version = -1
        self.hard: list[_Constraint] = []
        self.soft: list[_Constraint] = []
        self.all_soft_keys: Array = np.zeros(0, dtype=bool)
        self.own = True


class PodTopologySpread(Plugin):
    """Arguments: `defaultConstraints`, `defaultingType` System (default) or List."""

    local = False
    preemptible = True

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        self.system = self.arguments.get("defaultingType", "System") == "System"
        given = self.arguments.get("defaultConstraints") or []
        self.defaults: tuple[SpreadConstraint, ...] = (
            SYSTEM_DEFAULTS if self.system else tuple(SpreadConstraint(**constraint) for constraint in given)
        )
        self._cache: OrderedDict[bytes, _Static] = OrderedDict()

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {
            ClusterEvent("Pod", "Add"): _counts_for, ClusterEvent("Pod", "Update"): _counts_for,
            ClusterEvent("Pod", "Delete"): _counts_for,
            ClusterEvent("Node", "Add"): _has_keys, ClusterEvent("Node", "Delete"): _has_keys,
            ClusterEvent("Node", "Update"): _keys_changed,
        }  # fmt: skip

    # --- preparing ----------------------------------------------------------------------------------------------------

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        own = pod.pod.spec.topologySpreadConstraints
        default_selector: LabelSelector | None = None
        if not own:
            find = getattr(self.handle, "default_selector", None)
            default_selector = find(pod) if find and self.defaults else None
            if default_selector is None:
                return SKIP
        static = self._cache.get(pod.signature)
        if static is None or static.nodes_version != state.nodes_version:
            static = self._static(pod, state, own or self.defaults, default_selector)
            self._cache[pod.signature] = static
            if len(self._cache) > _CACHE_MAX:
                self._cache.popitem(last=False)
        for constraint in (*static.hard, *static.soft):
            constraint.counter = state.counter(constraint.counted, constraint.matches)
        return static if static.hard or static.soft else SKIP

    def _static(
        self, pod: PodInfo, state: ClusterState, constraints: Sequence[SpreadConstraint], default: LabelSelector | None
    ) -> _Static:
        static = _Static()
        static.nodes_version = state.nodes_version
        static.own = default is None or not self.system
        for when, out in (("DoNotSchedule", static.hard), ("ScheduleAnyway", static.soft)):
            chosen = [c for c in constraints if c.whenUnsatisfiable == when]
            with_keys = state.valid[: state.size].copy()
            if static.own:
                for constraint in chosen:
                    with_keys &= state.column(constraint.topologyKey).ids[: state.size] >= 0
            if when == "ScheduleAnyway":
                static.all_soft_keys = with_keys
            out += [self._constraint(pod, state, constraint, default, with_keys) for constraint in chosen]
        return static

    def _constraint(
        self,
        pod: PodInfo,
        state: ClusterState,
        constraint: SpreadConstraint,
        default: LabelSelector | None,
        with_keys: Array,
    ) -> _Constraint:
        out = _Constraint()
        selector = default or selector_of(constraint.labelSelector, pod.labels, constraint.matchLabelKeys)
        namespace = pod.namespace

        def matches() -> Matches:
            return lambda other: int(
                other.namespace == namespace and not other.terminating and selector.matches(other.labels)
            )

        out.key = constraint.topologyKey
        out.counted, out.matches = ("spread", namespace, selector), matches
        out.column = state.column(constraint.topologyKey)
        out.max_skew = constraint.maxSkew
        out.min_domains = constraint.minDomains or 1
        out.self_match = int(selector.matches(pod.labels))
        rows = slice(0, state.size)
        out.eligible = with_keys & (out.column.ids[rows] >= 0)
        if (constraint.nodeAffinityPolicy or "Honor") == "Honor":
            required = Required(pod.pod.spec, state)
            if not required.trivial:
                out.eligible &= required(state, rows)
        if constraint.nodeTaintsPolicy == "Honor":
            tolerations = pod.pod.spec.tolerations
            bearable = Lookup(state.taints, lambda taints: untolerated(tolerations, taints) is None, True, bool)
            out.eligible &= bearable(rows) & ~state.unschedulable[rows]
        out.present = np.zeros(len(out.column.values), dtype=bool)
        out.present[out.column.ids[rows][out.eligible]] = True
        return out

    # --- judging ------------------------------------------------------------------------------------------------------

    def filter(self, data: _Static, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(state.size, dtype=np.uint64)
        # A node is said to fail by the first constraint that it breaks.
        for constraint in reversed(data.hard):
            ids = constraint.column.ids[: state.size]
            domains = constraint.domains(state)
            counts = domains[constraint.present]
            least = counts.min() if len(counts) >= constraint.min_domains and len(counts) else 0
            too_many = domains + (constraint.self_match - least) > constraint.max_skew
            # Index -1, for rows without the label, finds the last entry.
            verdicts = np.append(too_many.astype(np.uint64), np.uint64(2))
            found = verdicts[ids]
            out = np.where(found != 0, found, out)
        return out[rows]

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (REASON, REASON_NO_LABEL)

    def unresolvable(self, data: Any) -> int:
        return 2

    def remedy(self, data: _Static, state: ClusterState, row: int) -> str:
        missing = [c.key for c in data.hard if c.column.ids[row] < 0]
        if missing:
            return f"fits on {state.name(row)} if the node has the label {', '.join(missing)}"
        parts = []
        for constraint in data.hard:
            domains = constraint.domains(state)
            counts = domains[constraint.present]
            least = int(counts.min()) if len(counts) >= constraint.min_domains and len(counts) else 0
            skew = int(domains[constraint.column.ids[row]]) + constraint.self_match - least
            if skew > constraint.max_skew:
                parts.append(f"maxSkew over {constraint.key} is ≥ {skew}")
        return f"fits on {state.name(row)} if {' and '.join(parts)}" if parts else ""

    def score(self, data: _Static, state: ClusterState, rows: Rows) -> Array:
        if not data.soft:
            return np.zeros(state.size, dtype=np.int64)[rows]
        total = np.zeros(state.size, dtype=np.float64)
        for constraint in data.soft:
            ids = constraint.column.ids[: state.size]
            domains = constraint.domains(state)
            size = int(constraint.present.sum())
            weight = math.log(size + 2)
            values = np.append(domains * weight + (constraint.max_skew - 1), 0.0)
            total += values[ids]
        return np.rint(total).astype(np.int64)[rows]

    def normalize(self, data: _Static, scores: Array, feasible: Array) -> Array:
        if not data.soft:
            return scores
        counted = feasible & data.all_soft_keys
        if not counted.any():
            return np.zeros_like(scores)
        chosen = scores[counted]
        highest, lowest = int(chosen.max()), int(chosen.min())
        out = np.full_like(scores, MAX_SCORE) if highest == 0 else MAX_SCORE * (highest + lowest - scores) // highest
        return np.where(counted, out, 0)


# --- hints ------------------------------------------------------------------------------------------------------------


def _counts_for(pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    """Whether the changed pod is among those that the waiting pod's constraints count."""
    for constraint in pod.pod.spec.topologySpreadConstraints or ():
        selector = selector_of(constraint.labelSelector, pod.labels, constraint.matchLabelKeys)
        for other in (old, new):
            if other is not None and other.namespace == pod.namespace and selector.matches(other.labels):
                return True
    return False


def _keys_of(pod: PodInfo) -> list[str]:
    return [constraint.topologyKey for constraint in pod.pod.spec.topologySpreadConstraints or ()]


def _has_keys(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    node = new or old
    labels: Mapping[str, str] = (node.metadata.labels or {}) if node else {}
    return all(key in labels for key in _keys_of(pod))


def _keys_changed(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    if old is None or new is None:
        return True
    before, after = old.metadata.labels or {}, new.metadata.labels or {}
    return any(before.get(key) != after.get(key) for key in _keys_of(pod))
