"""Pod affinity terms: whom a term means, and who on which node holds which terms.

A term is judged against a pod by `Term.matches`. `OwnedTerms` remembers for each distinct term how many pods on each
row hold it, so that an incoming pod can be held against the terms of all pods that are already there without looking
at those pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from machinery.api import selectors
from machinery.api.selectors import LabelSelector, Requirement
from services.scheduler.columns import Array
from services.scheduler.objects import PodAffinityTerm
from services.scheduler.pod_info import PodInfo

NamespaceLabels = Callable[[str], Mapping[str, str]]


class Term(NamedTuple):
    """A pod affinity term, resolved against the pod that holds it. Equal terms mean the same pods."""

    topology_key: str
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    selector: LabelSelector

    def matches(self, pod: PodInfo, namespace_labels: NamespaceLabels) -> bool:
        """Whether the term means this pod."""
        if pod.namespace not in self.namespaces and (
            self.namespace_selector is None or not self.namespace_selector.matches(namespace_labels(pod.namespace))
        ):
            return False
        return self.selector.matches(pod.labels)


def selector_of(
    selector: Any, labels: Mapping[str, str], same: Iterable[str] | None, other: Iterable[str] | None = None
) -> LabelSelector:
    """A label selector with matchLabelKeys and mismatchLabelKeys filled in from the holder's own labels."""
    parsed = selectors.from_label_selector(selector)
    if parsed.never:
        return parsed
    extra = [Requirement(key, "in", (labels[key],)) for key in same or () if key in labels]
    extra += [Requirement(key, "notin", (labels[key],)) for key in other or () if key in labels]
    return LabelSelector((*parsed.requirements, *extra)) if extra else parsed


def _term(term: PodAffinityTerm, holder: PodInfo) -> Term:
    namespaces = frozenset(term.namespaces or ())
    if not namespaces and term.namespaceSelector is None:
        namespaces = frozenset((holder.namespace,))
    chosen = None if term.namespaceSelector is None else selectors.from_label_selector(term.namespaceSelector)
    selector = selector_of(term.labelSelector, holder.labels, term.matchLabelKeys, term.mismatchLabelKeys)
    return Term(term.topologyKey, namespaces, chosen, selector)


class Terms(NamedTuple):
    """All terms of one pod; preferred ones with weights, negative for anti-affinity."""

    affinity: tuple[Term, ...]
    anti_affinity: tuple[Term, ...]
    preferred: tuple[tuple[Term, int], ...]

    @property
    def idle(self) -> bool:
        """Whether the pod has no terms."""
        return not (self.affinity or self.anti_affinity or self.preferred)


_NONE = Terms((), (), ())


def terms_of(pod: PodInfo) -> Terms:
    """The pod's terms."""
    affinity = pod.pod.spec.affinity
    if affinity is None or (affinity.podAffinity is None and affinity.podAntiAffinity is None):
        return _NONE

    def required(part: Any) -> tuple[Term, ...]:
        found = part.requiredDuringSchedulingIgnoredDuringExecution if part else None
        return tuple(_term(term, pod) for term in found or ())

    def preferred(part: Any, sign: int) -> list[tuple[Term, int]]:
        found = part.preferredDuringSchedulingIgnoredDuringExecution if part else None
        return [(_term(entry.podAffinityTerm, pod), sign * entry.weight) for entry in found or ()]

    return Terms(
        required(affinity.podAffinity),
        required(affinity.podAntiAffinity),
        (*preferred(affinity.podAffinity, 1), *preferred(affinity.podAntiAffinity, -1)),
    )


class Owned:
    """One distinct term that pods hold: how many of them each row has."""

    __slots__ = ("counts", "kind", "term", "total", "weight")

    def __init__(self, kind: str, term: Term, weight: int, capacity: int) -> None:
        self.kind = kind
        self.term = term
        self.weight = weight
        self.counts: Array = np.zeros(capacity, dtype=np.int64)
        self.total = 0


ANTI_AFFINITY, AFFINITY, PREFERRED = "anti-affinity", "affinity", "preferred"


class OwnedTerms:
    """Every distinct term that pods on rows hold or held.

    The list only grows until `compact`, so that readers can go on where they were.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: list[Owned] = []
        self.generation = 0
        self._index: dict[tuple[str, Term, int], Owned] = {}
        self._by_signature: dict[bytes, tuple[Owned, ...]] = {}

    def of(self, pod: PodInfo) -> Sequence[Owned]:
        """The entries that this pod counts in."""
        if pod.pod.spec.affinity is None:
            return ()
        found = self._by_signature.get(pod.signature)
        if found is None:
            terms = terms_of(pod)
            entries = [self._entry(ANTI_AFFINITY, term, 0) for term in terms.anti_affinity]
            entries += [self._entry(AFFINITY, term, 0) for term in terms.affinity]
            entries += [self._entry(PREFERRED, term, weight) for term, weight in terms.preferred]
            found = self._by_signature[pod.signature] = tuple(entries)
        return found

    def _entry(self, kind: str, term: Term, weight: int) -> Owned:
        key = (kind, term, weight)
        found = self._index.get(key)
        if found is None:
            found = self._index[key] = Owned(kind, term, weight, self.capacity)
            self.entries.append(found)
        return found

    def load(self, pod: PodInfo, row: int, sign: int) -> None:
        """The pod came to (1) or left (-1) the row."""
        for entry in self.of(pod):
            entry.counts[row] += sign
            entry.total += sign

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        extra = capacity - self.capacity
        self.capacity = capacity
        for entry in self.entries:
            entry.counts = np.pad(entry.counts, (0, extra))

    def compact(self) -> None:
        """Drop entries that no pod holds any more, once they are the most."""
        if len(self.entries) < 256 or sum(1 for entry in self.entries if entry.total) * 2 > len(self.entries):
            return
        self.entries = [entry for entry in self.entries if entry.total]
        self._index = {(entry.kind, entry.term, entry.weight): entry for entry in self.entries}
        self._by_signature.clear()
        self.generation += 1
