"""Which devices each node has: ResourceSlices sorted into pools, as one node sees them.

A pool's slices carry a generation; only those of the highest count, and only when all of them are there may devices
be taken from the pool. A pool whose slices contradict each other is invalid. The catalog belongs to one set of slices
and one state of the nodes; what is worked out about a slice (its devices, which selectors they satisfy) is kept as
long as the slice itself is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from machinery.api.device_taints import selects
from machinery.api.quantity import parse_quantity
from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.devices import selectors
from services.scheduler.devices.objects import (
    Consumption,
    CounterSet,
    Device,
    DeviceId,
    DeviceTaint,
    DeviceTaintRule,
    ResourceSlice,
)
from services.scheduler.objects import NodeSelector
from services.scheduler.plugins.node_affinity import Terms

PoolKey = tuple[str, str]
Counters = dict[str, dict[str, int]]
"""Amounts in billionths, by counter set and counter."""


class DeviceView:
    """A device of a slice, with what its selectors were found to say."""

    __slots__ = ("_matches", "_seen", "counters", "device", "id", "slice", "taints")

    def __init__(self, device: Device, slice_view: SliceView) -> None:
        self.device = device
        self.slice = slice_view
        self.id = DeviceId(slice_view.driver, slice_view.pool[1], device.name)
        self.counters = _counters(device.consumesCounters or ())
        # What its driver and the DeviceTaintRules say.
        self.taints: Sequence[DeviceTaint] = device.taints or ()
        self._seen: dict[str, Any] | None = None
        self._matches: dict[str, bool] = {}

    def matches(self, expression: str) -> bool:
        """Whether it satisfies a CEL selector. Raises selectors.SelectorError."""
        known = self._matches.get(expression)
        if known is None:
            if self._seen is None:
                self._seen = selectors.variables(self.device, self.id.driver)
            known = self._matches[expression] = selectors.matches(expression, self._seen)
        return known


class SliceView:
    """A ResourceSlice and its devices."""

    __slots__ = ("devices", "driver", "generation", "name", "object", "pool", "total")

    def __init__(self, obj: ResourceSlice) -> None:
        spec = obj.spec
        self.object = obj
        self.name = obj.metadata.name
        self.driver = spec.driver
        self.pool: PoolKey = (spec.driver, spec.pool.name)
        self.generation = spec.pool.generation
        self.total = spec.pool.resourceSliceCount
        self.devices = [DeviceView(device, self) for device in spec.devices or ()]


def _counters(of: Iterable[Consumption]) -> Counters:
    return {each.counterSet: {n: parse_quantity(c.value).nano for n, c in each.counters.items()} for each in of}


class NodePool:
    """A pool as one node sees it."""

    __slots__ = ("counters", "devices", "incomplete", "invalid", "key", "others")

    def __init__(self, key: PoolKey) -> None:
        self.key = key
        self.incomplete = False
        # Why nothing may be taken from it; empty: it is sound.
        self.invalid = ""
        # On this node, and those of the same pool elsewhere, which share its counters.
        self.devices: list[DeviceView] = []
        self.others: list[DeviceView] = []
        self.counters: Counters = {}

    @property
    def name(self) -> str:
        return "/".join(self.key)

    @property
    def usable(self) -> bool:
        return not self.incomplete and not self.invalid

    @property
    def binds_late(self) -> bool:
        """Whether taking some of its devices means waiting for conditions: such pools come last."""
        return any(view.device.bindingConditions is not None for view in self.devices)


class Catalog:
    """The pools of every node. Worked out a row at a time, when asked for."""

    def __init__(self, slices: Iterable[SliceView], state: ClusterState) -> None:
        self._state = state
        self._everything = list(slices)
        self._by_node: dict[str, list[SliceView]] = {}
        # Slices for several nodes: with the rows that they are for.
        self._shared: list[tuple[SliceView, Array]] = []
        self._device_rows: dict[DeviceId, Array] = {}
        self._pools: dict[int, list[NodePool]] = {}
        for view in self._everything:
            spec = view.object.spec
            if spec.nodeName and not spec.sharedCounters:
                self._by_node.setdefault(spec.nodeName, []).append(view)
            else:
                self._shared.append((view, self._rows_of(view)))

    def pools(self, row: int) -> list[NodePool]:
        """What the node of a row can use, in the order in which it is tried."""
        found = self._pools.get(row)
        if found is None:
            found = self._pools[row] = self._gather(row)
        return found

    def on_row(self, view: DeviceView, row: int) -> bool:
        """Whether a device whose slice leaves the nodes to its devices is for this row."""
        if not view.slice.object.spec.perDeviceNodeSelection:
            return True
        rows = self._device_rows.get(view.id)
        return rows is not None and row < len(rows) and bool(rows[row])

    # --- which rows ---------------------------------------------------------------------------------------------------

    def _matching(self, name: str | None, everywhere: bool | None, selector: NodeSelector | None) -> Array:
        state = self._state
        out = np.zeros(state.size, dtype=bool)
        if name:
            row = state.row_of.get(name)
            if row is not None:
                out[row] = True
        elif everywhere:
            out[:] = True
        elif selector is not None:
            out = Terms(selector, state)(state, slice(0, state.size))
        return out

    def _rows_of(self, view: SliceView) -> Array:
        spec = view.object.spec
        if spec.sharedCounters:  # Counters belong to the pool, wherever its devices are.
            return np.ones(self._state.size, dtype=bool)
        if not spec.perDeviceNodeSelection:
            return self._matching(spec.nodeName, spec.allNodes, spec.nodeSelector)
        out = np.zeros(self._state.size, dtype=bool)
        for each in view.devices:
            device = each.device
            rows = self._matching(device.nodeName, device.allNodes, device.nodeSelector)
            self._device_rows[each.id] = rows
            out |= rows
        return out

    # --- pools --------------------------------------------------------------------------------------------------------

    def _gather(self, row: int) -> list[NodePool]:
        own = self._by_node.get(self._state.name(row), [])
        candidates = own + [view for view, rows in self._shared if row < len(rows) and rows[row]]
        newest: dict[PoolKey, list[SliceView]] = {}
        for view in candidates:
            there = newest.get(view.pool)
            if there is None or view.generation > there[0].generation:
                newest[view.pool] = [view]
            elif view.generation == there[0].generation:
                there.append(view)
        pools = [pool for key, views in newest.items() if (pool := self._pool(key, views)) is not None]
        return sorted(pools, key=lambda pool: (pool.binds_late, pool.key))

    def _pool(self, key: PoolKey, here: list[SliceView]) -> NodePool | None:
        """None: a newer generation is elsewhere, so what this node sees of the pool is outdated."""
        pool = NodePool(key)
        generation, total = here[0].generation, here[0].total
        everywhere = here
        if len(here) != total:
            of_pool = [view for view in self._everything if view.pool == key]
            if any(view.generation > generation for view in of_pool):
                return None
            everywhere = [view for view in of_pool if view.generation == generation]
            if len(everywhere) != total:
                pool.incomplete = True
                return pool
        names = {view.name for view in here}
        for view in sorted(everywhere, key=lambda view: view.name):
            (pool.devices if view.name in names else pool.others).extend(view.devices)
        pool.invalid = _fill_counters(pool, here) or _contradiction(pool)
        return pool


def _fill_counters(pool: NodePool, views: Iterable[SliceView]) -> str:
    for view in views:
        for each in view.object.spec.sharedCounters or ():
            if each.name in pool.counters:
                return f"duplicate counter set name {each.name}"
            pool.counters[each.name] = _set(each)
    return ""


def _set(counters: CounterSet) -> dict[str, int]:
    return {name: parse_quantity(counter.value).nano for name, counter in counters.counters.items()}


def _contradiction(pool: NodePool) -> str:
    """What is wrong with the pool's devices, in words."""
    seen: set[str] = set()
    for view in pool.devices:
        if view.id.device in seen:
            return f"duplicate device name {view.id.device}"
        seen.add(view.id.device)
    for view in (*pool.devices, *pool.others):
        for name, counters in view.counters.items():
            known = pool.counters.get(name)
            if known is None:
                return f"counter set {name} not found"
            for counter in counters:
                if counter not in known:
                    return f"counter {counter} not found in counter set {name}"
    return ""


class SliceViews:
    """Views of the slices that there are; those of unchanged slices are kept."""

    def __init__(self) -> None:
        self._views: dict[str, SliceView] = {}
        self._rules: list[DeviceTaintRule] = []
        self._changed = True
        self._catalog: Catalog | None = None
        self._nodes = (-1, -1)

    def set(self, old: ResourceSlice | None, new: ResourceSlice | None) -> None:
        """A slice came, changed or went."""
        if new is not None:
            view = self._views[new.metadata.name] = SliceView(new)
            if self._rules:
                self._taint(view)
        elif old is not None:
            self._views.pop(old.metadata.name, None)
        self._changed = True

    def set_rules(self, rules: Iterable[DeviceTaintRule]) -> None:
        """These taint devices too."""
        self._rules = list(rules)
        self._changed = True
        for view in self._views.values():
            self._taint(view)

    def _taint(self, view: SliceView) -> None:
        for each in view.devices:
            more = [r.spec.taint for r in self._rules if selects(r.spec.deviceSelector, *each.id)]
            each.taints = [*(each.device.taints or ()), *more]

    def catalog(self, state: ClusterState) -> Catalog:
        """The catalog of now."""
        nodes = (state.nodes_version, state.size)
        if self._catalog is None or self._changed or nodes != self._nodes:
            self._catalog = Catalog(self._views.values(), state)
            self._changed, self._nodes = False, nodes
        return self._catalog
