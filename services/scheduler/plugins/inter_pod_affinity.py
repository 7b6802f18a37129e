"""InterPodAffinity: pods that want to be near, or far from, other pods.

"Near" means in the same domain of the term's topology key. Three rules refuse a node: the pod's own required
affinity, its own required anti-affinity, and the required anti-affinity of pods that are already there. Preferences
of either side score.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState, PodCounter
from services.scheduler.columns import Array
from services.scheduler.framework import MAX_SCORE, SKIP, ClusterEvent, Hint, Plugin, Rows
from services.scheduler.objects import Node
from services.scheduler.pod_info import PodInfo
from services.scheduler.pod_terms import AFFINITY, ANTI_AFFINITY, PREFERRED, Owned, Term, Terms, terms_of

REASON_AFFINITY = "node(s) didn't match pod affinity rules"
REASON_ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
REASON_EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"

_CACHE_MAX = 256


class _Known:
    """What is kept for pods of one signature: its terms, and which of the terms that others hold mean it."""

    def __init__(self, pod: PodInfo) -> None:
        self.terms: Terms = terms_of(pod)
        self.generation = -1
        self.seen = 0
        self.meant_by: list[Owned] = []
        self.self_affine = False


class _Data:
    def __init__(
        self,
        known: _Known,
        affinity: PodCounter | None,
        anti: list[tuple[Term, PodCounter]],
        scored: list[tuple[Term, PodCounter, int]],
    ) -> None:
        self.known = known
        self.affinity = affinity
        self.anti = anti
        self.scored = scored
        self.repelled_by = [owned for owned in known.meant_by if owned.kind == ANTI_AFFINITY and owned.total]
        self.attracted_by = [owned for owned in known.meant_by if owned.kind != ANTI_AFFINITY and owned.total]

    @property
    def idle(self) -> bool:
        return not (self.affinity or self.anti or self.scored or self.repelled_by or self.attracted_by)


class InterPodAffinity(Plugin):
    """Arguments.

    `hardPodAffinityWeight` (1): how much a required affinity of a pod that is there counts as a preference.
    """

    local = False
    preemptible = True

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        self.hard_weight = int(self.arguments.get("hardPodAffinityWeight", 1))
        self._cache: OrderedDict[bytes, _Known] = OrderedDict()

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {
            ClusterEvent("Pod", "Add"): _means, ClusterEvent("Pod", "Update"): _means,
            ClusterEvent("Pod", "Delete"): _means,
            ClusterEvent("Node", "Add"): None, ClusterEvent("Node", "Update"): _labels_changed,
        }  # fmt: skip

    # --- preparing ----------------------------------------------------------------------------------------------------

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        known = self._known(pod, state)
        terms = known.terms
        if not known.meant_by and terms.idle:
            return SKIP
        affinity = self._affinity_counter(terms.affinity, state) if terms.affinity else None
        anti = [(term, _counter(term, state)) for term in terms.anti_affinity]
        scored = [(term, _counter(term, state), weight) for term, weight in terms.preferred]
        data = _Data(known, affinity, anti, scored)
        return SKIP if data.idle else data

    def _known(self, pod: PodInfo, state: ClusterState) -> _Known:
        known = self._cache.get(pod.signature)
        if known is None:
            known = self._cache[pod.signature] = _Known(pod)
            known.self_affine = all(term.matches(pod, state.labels_of_namespace) for term in known.terms.affinity)
            if len(self._cache) > _CACHE_MAX:
                self._cache.popitem(last=False)
        owned = state.owned_terms
        if known.generation != owned.generation:
            known.generation, known.seen, known.meant_by = owned.generation, 0, []
        if known.seen < len(owned.entries):
            fresh = owned.entries[known.seen :]
            known.meant_by += [entry for entry in fresh if entry.term.matches(pod, state.labels_of_namespace)]
            known.seen = len(owned.entries)
        return known

    def _affinity_counter(self, terms: tuple[Term, ...], state: ClusterState) -> PodCounter:
        """Pods that all of the terms mean: only those count for required affinity."""

        def matches() -> Any:
            return lambda other: int(all(term.matches(other, state.labels_of_namespace) for term in terms))

        return state.counter(("affinity", terms), matches)

    # --- judging ------------------------------------------------------------------------------------------------------

    def filter(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        # A node is said to fail by the first rule that it breaks, so the later ones are written first.
        out = np.zeros(state.size, dtype=np.uint64)
        for owned in data.repelled_by:
            out[_near(owned.term, owned.counts, state) > 0] = np.uint64(4)
        for term, counter in data.anti:
            out[_near(term, counter.counts, state) > 0] = np.uint64(2)
        if data.affinity is not None:
            out[~self._attracted(data, state)] = np.uint64(1)
        return out[rows]

    def _attracted(self, data: _Data, state: ClusterState) -> Array:
        assert data.affinity is not None
        counts = data.affinity.counts
        out = np.ones(state.size, dtype=bool)
        labelled = np.ones(state.size, dtype=bool)
        anywhere = False
        for term in data.known.terms.affinity:
            near = _near(term, counts, state)
            anywhere = anywhere or bool(near.any())
            out &= near > 0
            labelled &= state.column(term.topology_key).ids[: state.size] >= 0
        # The first of a group of pods that want each other's company would wait for ever.
        return labelled if not anywhere and data.known.self_affine else out

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (REASON_AFFINITY, REASON_ANTI_AFFINITY, REASON_EXISTING)

    def unresolvable(self, data: Any) -> int:
        return 1  # Evicting pods brings no company.

    def remedy(self, data: _Data, state: ClusterState, row: int) -> str:
        parts = [
            f"a pod that matches {str(term.selector)!r} runs in its {term.topology_key}"
            for term in data.known.terms.affinity
            if data.affinity is not None
            and not self._attracted(data, state)[row]
            and _near(term, data.affinity.counts, state)[row] == 0
        ]
        parts += [
            f"no pod that matches {str(term.selector)!r} runs in its {term.topology_key}"
            for term, counter in data.anti
            if _near(term, counter.counts, state)[row] > 0
        ]
        parts += [
            f"the pods in its {owned.term.topology_key} that refuse {str(owned.term.selector)!r} leave"
            for owned in data.repelled_by
            if _near(owned.term, owned.counts, state)[row] > 0
        ]
        return f"fits on {state.name(row)} if {' and '.join(parts)}" if parts else ""

    def score(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(state.size, dtype=np.int64)
        for term, counter, weight in data.scored:
            out += _near(term, counter.counts, state) * weight
        for owned in data.attracted_by:
            weight = self.hard_weight if owned.kind == AFFINITY else owned.weight
            assert owned.kind in (AFFINITY, PREFERRED)
            if weight:
                out += _near(owned.term, owned.counts, state) * weight
        return out[rows]

    def normalize(self, data: _Data, scores: Array, feasible: Array) -> Array:
        if not feasible.any():
            return np.zeros_like(scores)
        chosen = scores[feasible]
        lowest, highest = int(chosen.min()), int(chosen.max())
        if lowest == highest:
            return np.zeros_like(scores)
        return (scores - lowest) * MAX_SCORE // (highest - lowest)


def _counter(term: Term, state: ClusterState) -> PodCounter:
    def matches() -> Any:
        return lambda other: int(term.matches(other, state.labels_of_namespace))

    return state.counter(("term", term.namespaces, term.namespace_selector, term.selector), matches)


def _near(term: Term, counts: Array, state: ClusterState) -> Array:
    """For each row, how many are in its domain; 0 for a row without the label."""
    ids = state.column(term.topology_key).ids[: state.size]
    bins = np.bincount(ids + 1, weights=counts[: state.size], minlength=1).astype(np.int64)
    bins[0] = 0
    out: Array = bins[ids + 1]
    return out


# --- hints ------------------------------------------------------------------------------------------------------------


def _means(pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    """Whether the changed pod is meant by the waiting pod's terms, or held terms of its own that may have kept the
    pod off.
    """
    mine = terms_of(pod)
    for other in (old, new):
        if other is None:
            continue
        if old is not None and terms_of(other).anti_affinity:
            return True
        if any(term.selector.matches(other.labels) for term in (*mine.affinity, *mine.anti_affinity)):
            return True
    return False


def _labels_changed(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    return old is None or new is None or old.metadata.labels != new.metadata.labels
