"""What the nodes have and what runs on them, as arrays: one row a node, one column a fact.

The state is fed by watches (`set_node`, `remove_node`, `set_pod`, `remove_pod`) and by the scheduler's own decisions
(`assume`, `forget`). An assumed pod counts as if it ran there, until the watch confirms it or the binding fails.

Invariants, asserted by `validate`:
- `requested[:, row]`, `scored[:, row]`, `ports` and every counter equal what follows from the pods of that row.
- a pod (by uid) is on at most one row; an assumed pod is on exactly one.
- a row without a node has `valid` False. Pods whose node is unknown yet keep a row too, which becomes valid when the
  node appears.
- every change of a row is in the journal, so that a cache can bring itself up to date row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from services.scheduler.columns import Array, Column
from services.scheduler.objects import Node, Taint
from services.scheduler.pod_info import PodInfo, amount
from services.scheduler.pod_terms import OwnedTerms

CPU, MEMORY, EPHEMERAL_STORAGE, PODS = 0, 1, 2, 3
_FIRST_CAPACITY = 64
_JOURNAL_MAX = 65_536
_COUNTED_MAX = 8192

Matches = Callable[[PodInfo], int]
"""How much a pod counts for a counter: 0 not at all."""


class PodCounter:
    """How many pods of a kind each row has. Kept up to date by the state; the kind is a function of the pod."""

    __slots__ = ("counts", "matches", "used_at")

    def __init__(self, capacity: int, matches: Matches) -> None:
        self.counts: Array = np.zeros(capacity, dtype=np.int64)
        self.matches = matches
        self.used_at = 0


class NodeRow:
    """A row's objects."""

    __slots__ = ("name", "node", "pods")

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        self.pods: dict[str, PodInfo] = {}


class ClusterState:
    """See the module's docstring. Not thread-safe; nothing in it waits."""

    COUNTERS_MAX = 512

    def __init__(self) -> None:
        self.capacity = _FIRST_CAPACITY
        self.size = 0
        self.resources: dict[str, int] = {
            "cpu": CPU,
            "memory": MEMORY,
            "ephemeral-storage": EPHEMERAL_STORAGE,
            "pods": PODS,
        }
        self.allocatable: Array = np.zeros((4, self.capacity), dtype=np.int64)
        self.requested: Array = np.zeros((4, self.capacity), dtype=np.int64)
        # cpu and memory with defaults for containers that request none: what scores are made of.
        self.scored: Array = np.zeros((2, self.capacity), dtype=np.int64)
        self.valid: Array = np.zeros(self.capacity, dtype=bool)
        self.unschedulable: Array = np.zeros(self.capacity, dtype=bool)
        self.taints = Column(self.capacity)
        self.rows: list[NodeRow | None] = []
        self.row_of: dict[str, int] = {}
        self.node_count = 0
        # Grows when a node appears, vanishes or changes; what depends on nodes only can be kept until then.
        self.nodes_version = 0
        self.ports: dict[tuple[str, int], dict[int, dict[str, int]]] = {}
        self._numbers: Array = np.arange(self.capacity)
        self._free: list[int] = []
        self._columns: dict[str, Column] = {}
        self._pods: dict[str, tuple[PodInfo, int]] = {}
        self._assumed: set[str] = set()
        self._nominated: dict[str, tuple[PodInfo, int]] = {}
        self._counters: dict[Hashable, PodCounter] = {}
        self._counted: dict[tuple[bytes, bool], list[tuple[PodCounter, int]]] = {}
        self._clock = 0
        self.owned_terms = OwnedTerms(self.capacity)
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self.journal: list[int] = []
        self.journal_start = 0

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _row(self, name: str) -> int:
        row = self.row_of.get(name)
        if row is not None:
            return row
        if self._free:
            row = self._free.pop()
        else:
            row = self.size
            if row == self.capacity:
                self._grow()
            self.size += 1
            self.rows.append(None)
        self.rows[row] = NodeRow(name)
        self.row_of[name] = row
        return row

    def _grow(self) -> None:
        extra = self.capacity
        self.capacity += extra
        self._numbers = np.arange(self.capacity)
        self.allocatable = np.pad(self.allocatable, ((0, 0), (0, extra)))
        self.requested = np.pad(self.requested, ((0, 0), (0, extra)))
        self.scored = np.pad(self.scored, ((0, 0), (0, extra)))
        self.valid = np.pad(self.valid, (0, extra))
        self.unschedulable = np.pad(self.unschedulable, (0, extra))
        for column in (self.taints, *self._columns.values()):
            column.grow(self.capacity)
        for counter in self._counters.values():
            counter.counts = np.pad(counter.counts, (0, extra))
        self.owned_terms.grow(self.capacity)

    def _release(self, row: int) -> None:
        """Give the row back once nothing is on it."""
        entry = self.rows[row]
        assert entry is not None
        if entry.node is None and not entry.pods and not any(row == kept for _, kept in self._nominated.values()):
            del self.row_of[entry.name]
            self.rows[row] = None
            self._free.append(row)

    def _touch(self, row: int) -> None:
        self.journal.append(row)
        if len(self.journal) > _JOURNAL_MAX:
            # Caches that are further behind than what is kept start over.
            dropped = len(self.journal) // 2
            del self.journal[:dropped]
            self.journal_start += dropped

    @property
    def position(self) -> int:
        """The journal's end: a cache that is up to date is at it."""
        return self.journal_start + len(self.journal)

    def changed_since(self, position: int) -> list[int] | None:
        """Rows that changed since, possibly repeated; None if that is too long ago to tell."""
        if position < self.journal_start:
            return None
        return self.journal[position - self.journal_start :]

    def resource(self, name: str) -> int:
        """The resource's index in the matrices, given on first sight."""
        index = self.resources.get(name)
        if index is None:
            index = self.resources[name] = len(self.resources)
            self.allocatable = np.pad(self.allocatable, ((0, 1), (0, 0)))
            self.requested = np.pad(self.requested, ((0, 1), (0, 0)))
        return index

    # --- nodes --------------------------------------------------------------------------------------------------------

    def set_node(self, node: Node) -> None:
        """A node appeared or changed."""
        row = self._row(node.metadata.name)
        entry = self.rows[row]
        assert entry is not None
        if entry.node is None:
            self.node_count += 1
        entry.node = node
        self.valid[row] = True
        self.unschedulable[row] = bool(node.spec.unschedulable)
        given = {
            name: amount(name, text) for name, text in (node.status.allocatable or node.status.capacity or {}).items()
        }
        indices = {self.resource(name): value for name, value in given.items()}
        self.allocatable[:, row] = 0
        for index, value in indices.items():
            self.allocatable[index, row] = value
        taints: tuple[Taint, ...] = tuple(node.spec.taints or ())
        self.taints.set(row, taints)
        labels = node.metadata.labels or {}
        for key, column in self._columns.items():
            column.set(row, labels.get(key))
        self.nodes_version += 1
        self._touch(row)

    def remove_node(self, name: str) -> None:
        """A node vanished. Its pods keep counting for nothing until they vanish too."""
        row = self.row_of.get(name)
        entry = self.rows[row] if row is not None else None
        if row is None or entry is None or entry.node is None:
            return
        entry.node = None
        for uid in [uid for uid, (_, kept) in self._nominated.items() if kept == row]:
            self.withdraw(uid)
        self.node_count -= 1
        self.valid[row] = False
        self.unschedulable[row] = False
        self.allocatable[:, row] = 0
        self.taints.set(row, None)
        for column in self._columns.values():
            column.set(row, None)
        self.nodes_version += 1
        self._touch(row)
        self._release(row)

    def column(self, key: str) -> Column:
        """The column of a node label; made on first use."""
        found = self._columns.get(key)
        if found is None:
            found = self._columns[key] = Column(self.capacity)
            for row, entry in enumerate(self.rows):
                if entry is not None and entry.node is not None:
                    found.set(row, (entry.node.metadata.labels or {}).get(key))
        return found

    def node(self, row: int) -> Node:
        """The node of a valid row."""
        entry = self.rows[row]
        assert entry is not None
        assert entry.node is not None
        return entry.node

    def name(self, row: int) -> str:
        """The name of a row's node."""
        entry = self.rows[row]
        assert entry is not None
        return entry.name

    def pods_of(self, row: int) -> list[PodInfo]:
        """What runs, or is assumed to run, on a row."""
        entry = self.rows[row]
        return list(entry.pods.values()) if entry else []

    def row_numbers(self, rows: Any) -> Array:
        """The numbers that `rows` (a slice or an array) stands for."""
        return self._numbers[rows] if isinstance(rows, slice) else rows

    # --- pods ---------------------------------------------------------------------------------------------------------

    def set_pod(self, info: PodInfo, node: str) -> None:
        """The watch says that this pod is on `node`: new, changed, or the confirmation of what was assumed."""
        self._assumed.discard(info.uid)
        present = self._pods.get(info.uid)
        if present is not None:
            old, row = present
            entry = self.rows[row]
            assert entry is not None
            if entry.name == node and _same_load(old, info):
                self._pods[info.uid] = (info, row)
                entry.pods[info.uid] = info
                return
            self._take_off(old, row)
        self._put_on(info, self._row(node))

    def remove_pod(self, uid: str) -> PodInfo | None:
        """The pod is gone or has ended; what was known of it."""
        self._assumed.discard(uid)
        present = self._pods.get(uid)
        if present is None:
            return None
        info, row = present
        self._take_off(info, row)
        return info

    def assume(self, info: PodInfo, row: int) -> None:
        """The scheduler decided: count the pod on this row from now on."""
        assert info.uid not in self._pods, f"{info.key} is already on a node"
        self._put_on(info, row)
        self._assumed.add(info.uid)

    def forget(self, uid: str) -> None:
        """The binding failed: take an assumed pod off again. A confirmed one stays."""
        if uid in self._assumed:
            self.remove_pod(uid)

    def lift(self, uid: str) -> None:
        """Take a pod off for a what-if; `put_back` must follow. What is assumed stays assumed."""
        info, row = self._pods[uid]
        self._take_off(info, row, keep_row=True)

    def put_back(self, info: PodInfo, row: int) -> None:
        """Undo `lift`."""
        self._put_on(info, row)

    def nominate(self, info: PodInfo, node: str) -> None:
        """Keep room on `node` for a pod whose victims are still leaving: it counts there, under a uid of its own."""
        self.withdraw(info.uid)
        row = self.row_of.get(node)
        if row is not None:
            self._nominated[info.uid] = (info, row)
            self._load(info, row, 1)

    def withdraw(self, uid: str) -> None:
        """Give up the room that is kept for a pod."""
        present = self._nominated.pop(uid, None)
        if present is not None:
            self._load(*present, -1)

    def lesser_nominated(self, pod: PodInfo) -> list[tuple[PodInfo, str]]:
        """Pods for which room is kept that this pod may take: its own, and that of less important ones."""
        found = [(i, row) for i, row in self._nominated.values() if i.uid == pod.uid or i.priority < pod.priority]
        return [(info, self.name(row)) for info, row in found]

    def is_assumed(self, uid: str) -> bool:
        """Whether the pod is counted by our decision only."""
        return uid in self._assumed

    def node_of(self, uid: str) -> str | None:
        """The node on which the pod counts, or None."""
        present = self._pods.get(uid)
        return self.name(present[1]) if present else None

    def pod(self, uid: str) -> PodInfo | None:
        """A pod that is on some row."""
        present = self._pods.get(uid)
        return present[0] if present else None

    @property
    def pod_count(self) -> int:
        """How many pods are on rows."""
        return len(self._pods)

    def _put_on(self, info: PodInfo, row: int) -> None:
        self._pods[info.uid] = (info, row)
        entry = self.rows[row]
        assert entry is not None
        entry.pods[info.uid] = info
        self._load(info, row, 1)

    def _take_off(self, info: PodInfo, row: int, *, keep_row: bool = False) -> None:
        del self._pods[info.uid]
        entry = self.rows[row]
        assert entry is not None
        del entry.pods[info.uid]
        self._load(info, row, -1)
        if not keep_row:
            self._release(row)

    def _load(self, info: PodInfo, row: int, sign: int) -> None:
        for resource, value in info.requests.items():
            self.requested[self.resource(resource), row] += sign * value
        self.scored[CPU, row] += sign * info.cpu_scored
        self.scored[MEMORY, row] += sign * info.memory_scored
        for counter, count in self._counted_by(info):
            counter.counts[row] += sign * count
        self.owned_terms.load(info, row, sign)
        for port in info.host_ports:
            holders = self.ports.setdefault((port.protocol, port.port), {}).setdefault(row, {})
            holders[port.ip] = holders.get(port.ip, 0) + sign
            if not holders[port.ip]:
                del holders[port.ip]
        self._touch(row)

    def _counted_by(self, info: PodInfo) -> list[tuple[PodCounter, int]]:
        """The counters that count this pod.

        Pods of one signature are counted alike, so each signature is judged once.
        """
        key = (info.signature, info.terminating)
        found = self._counted.get(key)
        if found is None:
            found = [(c, count) for c in self._counters.values() if (count := c.matches(info))]
            if len(self._counted) >= _COUNTED_MAX:
                self._counted.clear()
            self._counted[key] = found
        return found

    # --- counters -----------------------------------------------------------------------------------------------------

    def counter(self, key: Hashable, matches: Callable[[], Matches]) -> PodCounter:
        """The counter of that key, made (and counted) on first use. The least recently used one makes room."""
        found = self._counters.get(key)
        if found is None:
            if len(self._counters) >= self.COUNTERS_MAX:
                del self._counters[min(self._counters, key=lambda k: self._counters[k].used_at)]
            self._counted.clear()
            found = self._counters[key] = PodCounter(self.capacity, matches())
            for info, row in (*self._pods.values(), *self._nominated.values()):
                count = found.matches(info)
                if count:
                    found.counts[row] += count
        found.used_at = self.tick()
        return found

    def tick(self) -> int:
        """A number that grows with each use of a counter; what is used keeps its counter."""
        self._clock += 1
        return self._clock

    # --- namespaces ---------------------------------------------------------------------------------------------------

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace appeared, changed, or (None) vanished. Terms may choose by its labels, so counts start over."""
        if self._namespaces.get(name) == labels:
            return
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = labels
        if any(entry.term.namespace_selector is not None for entry in self.owned_terms.entries) or self._counters:
            self._counters.clear()
            self._counted.clear()
            self.owned_terms.generation += 1

    def labels_of_namespace(self, name: str) -> Mapping[str, str]:
        """The labels of a namespace; none if it is unknown."""
        return self._namespaces.get(name) or {}

    def validate(self) -> None:
        """Assert the invariants. For tests: it looks at everything."""
        requested, scored = np.zeros_like(self.requested), np.zeros_like(self.scored)
        for info, row in self._pods.values():
            entry = self.rows[row]
            assert entry is not None
            assert entry.pods[info.uid] is info
        everything = [*self._pods.values(), *self._nominated.values()]
        for info, row in everything:
            for resource, value in info.requests.items():
                requested[self.resources[resource], row] += value
            scored[:, row] += (info.cpu_scored, info.memory_scored)
        assert (requested == self.requested).all()
        assert (scored == self.scored).all()
        assert sum(len(entry.pods) for entry in self.rows if entry) == len(self._pods)
        assert self._assumed <= self._pods.keys()
        assert (
            int(self.valid.sum())
            == self.node_count
            == sum(1 for e in self.rows if e is not None and e.node is not None)
        )
        for counter in self._counters.values():
            counts = np.zeros_like(counter.counts)
            for info, row in everything:
                counts[row] += counter.matches(info)
            assert (counts == counter.counts).all()


def _same_load(old: PodInfo, new: PodInfo) -> bool:
    """Whether the two states of a pod weigh the same on their node, so that nothing need be counted anew."""
    return (
        old.requests == new.requests
        and old.host_ports == new.host_ports
        and old.terminating == new.terminating
        and old.pod.metadata.labels == new.pod.metadata.labels
        and (old.cpu_scored, old.memory_scored) == (new.cpu_scored, new.memory_scored)
        and old.pod.spec.affinity == new.pod.spec.affinity
    )
