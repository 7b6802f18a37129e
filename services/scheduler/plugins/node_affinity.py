"""NodeAffinity: nodeSelector and node affinity, required and preferred.

Each requirement is judged once for each value that its label has in the cluster, and looked up for all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from machinery.api import selectors
from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import MISSING, Array, Lookup
from services.scheduler.framework import SKIP, ClusterEvent, Hint, Plugin, Rejected, Rows, count_of, normalize
from services.scheduler.objects import Node, NodeSelector, NodeSelectorTerm, PodSpec, Requirement
from services.scheduler.pod_info import PodInfo

REASON = "node(s) didn't match Pod's node affinity/selector"

Test = Callable[[ClusterState, Rows], Array]
"""(state, rows) to a bool a row."""


def _judge(requirement: Requirement) -> Callable[[str], bool]:
    values = frozenset(requirement.values or ())
    match requirement.operator:
        case "In":
            return lambda value: value in values
        case "NotIn":
            return lambda value: value not in values
        case "Exists":
            return lambda value: True
        case "DoesNotExist":
            return lambda value: False
        case ("Gt" | "Lt") as operator:
            return _comparison(operator, requirement.values or ())
        case _:
            return lambda value: False


def _comparison(operator: str, values: Sequence[str]) -> Callable[[str], bool]:
    def compare(value: str) -> bool:
        try:
            left, right = int(value), int(values[0])
        except (ValueError, IndexError):
            return False
        return left > right if operator == "Gt" else left < right

    return compare


def _label_test(requirement: Requirement, state: ClusterState) -> Test:
    absent = requirement.operator in ("NotIn", "DoesNotExist")
    lookup = Lookup(state.column(requirement.key), _judge(requirement), absent, bool)
    return lambda state, rows: lookup(rows)


def _field_test(requirement: Requirement) -> Test:
    """metadata.name, the one field that can be selected."""

    def test(state: ClusterState, rows: Rows) -> Array:
        wanted = [state.row_of.get(name, MISSING) for name in requirement.values or ()]
        found = np.isin(state.row_numbers(rows), wanted)
        return ~found if requirement.operator == "NotIn" else found

    return test


def _in_words(requirement: Requirement) -> str:
    """ "its label disk is ssd", to stand after an "if"."""
    values = " or ".join(requirement.values or ())
    match requirement.operator:
        case "In":
            return f"its label {requirement.key} is {values}"
        case "NotIn":
            return f"its label {requirement.key} is not {values}"
        case "Exists":
            return f"it has the label {requirement.key}"
        case "DoesNotExist":
            return f"it has no label {requirement.key}"
        case operator:
            return f"its label {requirement.key} is {'more' if operator == 'Gt' else 'less'} than {values}"


def _unmet(term: NodeSelectorTerm, state: ClusterState, row: int) -> str:
    """What of a term does not hold on a row, in words; empty if all does."""
    only = slice(row, row + 1)
    parts = [_in_words(each) for each in term.matchExpressions or () if not _label_test(each, state)(state, only)[0]]
    parts += [
        f"it is {'not ' if each.operator == 'NotIn' else ''}{' or '.join(each.values or ())}"
        for each in term.matchFields or ()
        if not _field_test(each)(state, only)[0]
    ]
    return " and ".join(parts)


def _term_tests(term: NodeSelectorTerm, state: ClusterState) -> list[Test]:
    tests = [_label_test(requirement, state) for requirement in term.matchExpressions or ()]
    return tests + [_field_test(requirement) for requirement in term.matchFields or ()]


class Terms:
    """A node selector: some term's requirements all hold.

    A term without requirements selects nothing, as upstream has it.
    """

    def __init__(self, selector: NodeSelector, state: ClusterState) -> None:
        self._terms = [tests for term in selector.nodeSelectorTerms if (tests := _term_tests(term, state))]

    def __call__(self, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(count_of(rows, state), dtype=bool)
        for tests in self._terms:
            out |= _conjunction(tests, state, rows)
        return out


class Required:
    """nodeSelector and required node affinity of a pod, as a test on rows."""

    def __init__(self, spec: PodSpec, state: ClusterState) -> None:
        self._selector = [Requirement(k, "In", [v]) for k, v in (spec.nodeSelector or {}).items()]
        self._all = [_label_test(requirement, state) for requirement in self._selector]
        affinity = spec.affinity.nodeAffinity if spec.affinity else None
        required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity else None
        self._terms = Terms(required, state) if required is not None else None
        self._alternatives = required.nodeSelectorTerms if required is not None else []

    def missing(self, state: ClusterState, row: int) -> str:
        """What the node of a row lacks, in words; empty if it lacks nothing."""
        only = slice(row, row + 1)
        parts = [
            _in_words(each) for each, test in zip(self._selector, self._all, strict=True) if not test(state, only)[0]
        ]
        if self._terms is not None and not self._terms(state, only)[0]:
            unmet = [words for term in self._alternatives if (words := _unmet(term, state, row))]
            parts.append(", or ".join(unmet))
        return " and ".join(filter(None, parts))

    @property
    def trivial(self) -> bool:
        """Whether every node passes."""
        return not self._all and self._terms is None

    def __call__(self, state: ClusterState, rows: Rows) -> Array:
        out = np.ones(count_of(rows, state), dtype=bool)
        for test in self._all:
            out &= test(state, rows)
        return out & self._terms(state, rows) if self._terms is not None else out


def _conjunction(tests: Iterable[Test], state: ClusterState, rows: Rows) -> Array:
    out: Array | None = None
    for test in tests:
        found = test(state, rows)
        out = found if out is None else out & found
    assert out is not None
    return out


class _Data:
    def __init__(self, spec: PodSpec, state: ClusterState) -> None:
        self.required = Required(spec, state)
        affinity = spec.affinity.nodeAffinity if spec.affinity else None
        preferred = (affinity.preferredDuringSchedulingIgnoredDuringExecution if affinity else None) or ()
        self.preferred = [(term.weight, tests) for term in preferred if (tests := _term_tests(term.preference, state))]


class NodeAffinity(Plugin):
    """Labels of nodes against what pods select and prefer."""

    local = True
    static = True

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {ClusterEvent("Node", "Add"): _becomes_right, ClusterEvent("Node", "Update"): _becomes_right}

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        data = _Data(pod.pod.spec, state)
        if data.required.trivial and not data.preferred:
            return SKIP
        names = _only_names(pod.pod.spec)
        if names is not None and not any(name in state.row_of for name in names):
            return Rejected(REASON)
        return data

    def filter(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        return (~data.required(state, rows)).astype(np.uint64)

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (REASON,)

    def remedy(self, data: _Data, state: ClusterState, row: int) -> str:
        return f"fits on {state.name(row)} if {data.required.missing(state, row)}"

    def score(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(count_of(rows, state), dtype=np.int64)
        for weight, tests in data.preferred:
            out += weight * _conjunction(tests, state, rows)
        return out

    def normalize(self, data: _Data, scores: Array, feasible: Array) -> Array:
        return normalize(scores, feasible)


def _only_names(spec: PodSpec) -> list[str] | None:
    """The node names to which a DaemonSet's pod is pinned; None if it may go elsewhere."""
    affinity = spec.affinity.nodeAffinity if spec.affinity else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity else None
    if required is None or not required.nodeSelectorTerms:
        return None
    names: list[str] = []
    for term in required.nodeSelectorTerms:
        fields = [f for f in term.matchFields or () if f.key == "metadata.name" and f.operator == "In"]
        if not fields:
            return None
        names += fields[0].values or []
    return names


def _becomes_right(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    """Whether the pod selects the node, and did not before."""
    return new is not None and selects(pod.pod.spec, new) and (old is None or not selects(pod.pod.spec, old))


def selects(spec: PodSpec, node: Node) -> bool:
    """nodeSelector and required node affinity against one Node object."""
    labels = node.metadata.labels or {}
    if any(labels.get(key) != value for key, value in (spec.nodeSelector or {}).items()):
        return False
    affinity = spec.affinity.nodeAffinity if spec.affinity else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity else None
    if required is None:
        return True
    fields = {"metadata.name": node.metadata.name}
    return any(
        (term.matchExpressions or term.matchFields)
        and all(_holds(each, labels) for each in term.matchExpressions or ())
        and all(_holds(each, fields) for each in term.matchFields or ())
        for term in required.nodeSelectorTerms
    )


def _holds(requirement: Requirement, values: Mapping[str, str]) -> bool:
    return selectors.requirement(requirement.key, requirement.operator, requirement.values or ()).matches(values)
