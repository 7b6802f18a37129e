"""A profile: plugins in their order, run over all nodes at once, with what can be kept between pods of one signature.

`judge` is the whole of filtering and scoring for one pod. What local plugins say is kept by signature and brought up to date from the state's
journal, so that the next replica of a Deployment costs one row's work and one look over all nodes, however many there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import SKIP, Plugin, PluginError, Rejected, Weighted, has
from services.scheduler.pod_info import PodInfo

CACHE_MAX = 128

ALL = slice(None)


class Prepared:
    """What was worked out for pods of one signature."""

    __slots__ = ("capacity", "data", "fits", "nodes_version", "position", "raw", "rejected", "total")

    def __init__(self) -> None:
        # By plugin name; SKIP where the plugin has nothing to say.
        self.data: dict[str, Any] = {}
        self.rejected: tuple[Plugin, str] | None = None
        self.capacity = 0
        self.position = -1
        self.nodes_version = -1
        # Over all rows: whether every local filter agrees; the weighted sum of local scores that need no normalising; raw scores of the rest.
        self.fits: Array = np.zeros(0, dtype=bool)
        self.total: Array = np.zeros(0, dtype=np.int64)
        self.raw: dict[str, Array] = {}


class Judgement:
    """What the plugins say of one pod on all rows: which fit, and how good each of those is."""

    __slots__ = ("feasible", "prepared", "rejected", "total")

    def __init__(self, prepared: Prepared, feasible: Array, total: Array | None) -> None:
        self.prepared = prepared
        self.feasible = feasible
        self.total = total
        self.rejected = prepared.rejected


class Profile:
    """One scheduler name's plugins."""

    def __init__(
        self, name: str, filters: Sequence[Plugin], scores: Sequence[Weighted], others: Sequence[Plugin] = ()
    ) -> None:
        self.name = name
        self.filters = list(filters)
        self.scores = list(scores)
        self.plugins: list[Plugin] = list(
            {id(p): p for p in (*filters, *(weighted.plugin for weighted in scores), *others)}.values()
        )
        self._local_filters = [p for p in self.filters if p.local]
        self._global_filters = [p for p in self.filters if not p.local]
        self._cache: OrderedDict[bytes, Prepared] = OrderedDict()

    def with_point(self, point: str) -> list[Plugin]:
        """The plugins that take part in an extension point, in order."""
        return [plugin for plugin in self.plugins if has(plugin, point)]

    # --- one pod ------------------------------------------------------------------------------------------------------

    def judge(self, pod: PodInfo, state: ClusterState, *, score: bool = True) -> Judgement:
        """Filter all rows, and score those that fit. Raises PluginError."""
        prepared = self._prepared(pod, state)
        size = state.size
        if prepared.rejected is not None:
            return Judgement(prepared, np.zeros(size, dtype=bool), None)
        feasible = prepared.fits[:size]
        copied = False
        for plugin in self._global_filters:
            data = prepared.data[plugin.name]
            if data is SKIP:
                continue
            refused = _call(plugin, "filter", data, state, slice(0, size)) != 0
            feasible = feasible & ~refused
            copied = True
        if not score:
            return Judgement(prepared, feasible if copied else feasible.copy(), None)
        total = prepared.total[:size]
        for plugin, weight in self.scores:
            data = prepared.data[plugin.name]
            if data is SKIP:
                continue
            if plugin.local:
                raw = prepared.raw.get(plugin.name)
                if raw is None:
                    continue  # Needs no normalising, so it is in the total already.
                scores = raw[:size]
                if not scores.any():
                    continue  # All equal: no difference to anyone.
            else:
                scores = _call(plugin, "score", data, state, slice(0, size))
            if has(plugin, "normalize"):
                scores = _call(plugin, "normalize", data, scores, feasible)
            total = total + scores * weight
        return Judgement(prepared, feasible, total)

    def _prepared(self, pod: PodInfo, state: ClusterState) -> Prepared:
        signature = pod.signature
        prepared = self._cache.get(signature)
        if prepared is None:
            prepared = self._cache[signature] = Prepared()
            if len(self._cache) > CACHE_MAX:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(signature)
        try:
            self._prepare(prepared, pod, state)
            if prepared.rejected is None:
                self._bring_up_to_date(prepared, state)
        except PluginError:
            self._cache.pop(signature, None)
            raise
        return prepared

    def _prepare(self, prepared: Prepared, pod: PodInfo, state: ClusterState) -> None:
        """Call each plugin's `prepare`: global ones for each pod, local ones when nodes have changed."""
        fresh = prepared.nodes_version != state.nodes_version
        if fresh:
            prepared.rejected = None
            prepared.nodes_version = state.nodes_version
            prepared.position = -1
        for plugin in self.plugins:
            if plugin.local and not fresh:
                continue
            data = _call(plugin, "prepare", pod, state)
            if isinstance(data, Rejected):
                prepared.rejected = (plugin, data.reason)
                prepared.nodes_version = -1  # The reason may go without any node changing: ask again next time.
                return
            prepared.data[plugin.name] = data

    def _bring_up_to_date(self, prepared: Prepared, state: ClusterState) -> None:
        changed = None
        if prepared.position >= 0 and prepared.capacity == state.capacity:
            changed = state.changed_since(prepared.position)
        prepared.position = state.position
        if changed is None or len(changed) > max(64, state.size // 4):
            prepared.capacity = state.capacity
            prepared.fits = np.zeros(state.capacity, dtype=bool)
            prepared.total = np.zeros(state.capacity, dtype=np.int64)
            prepared.raw = {}
            self._evaluate(prepared, state, slice(0, state.size))
        elif changed:
            self._evaluate(prepared, state, np.array(list(dict.fromkeys(changed)), dtype=np.intp))

    def _evaluate(self, prepared: Prepared, state: ClusterState, rows: Any) -> None:
        """Work the local plugins out for these rows."""
        fits = state.valid[rows]
        for plugin in self._local_filters:
            data = prepared.data[plugin.name]
            if data is not SKIP:
                fits = fits & (_call(plugin, "filter", data, state, rows) == 0)
        prepared.fits[rows] = fits
        total: Any = 0
        for plugin, weight in self.scores:
            data = prepared.data[plugin.name]
            if not plugin.local or data is SKIP:
                continue
            scores = _call(plugin, "score", data, state, rows)
            if has(plugin, "normalize"):
                raw = prepared.raw.get(plugin.name)
                if raw is None:
                    raw = prepared.raw[plugin.name] = np.zeros(state.capacity, dtype=np.int64)
                raw[rows] = scores
            else:
                total = total + scores * weight
        prepared.total[rows] = total

    # --- in detail, for diagnosis and Explain -------------------------------------------------------------------------

    def verdicts(
        self, pod: PodInfo, state: ClusterState, *, every_plugin: bool = False
    ) -> list[tuple[Plugin, Any, Array]]:
        """Each filter's answer for all rows, as (plugin, data, reason bits). Not cached: for pods that do not fit, and for people.

        As upstream does, a row that one plugin refuses is not shown to the next, unless `every_plugin`.
        """
        prepared = self._prepared(pod, state)
        out: list[tuple[Plugin, Any, Array]] = []
        open_rows = state.valid[: state.size].copy()
        for plugin in self.filters:
            data = prepared.data.get(plugin.name, SKIP)
            if data is SKIP:
                continue
            bits = _call(plugin, "filter", data, state, slice(0, state.size)).copy()
            bits[~(state.valid[: state.size] if every_plugin else open_rows)] = 0
            open_rows &= bits == 0
            out.append((plugin, data, bits))
        return out

    def score_details(self, pod: PodInfo, state: ClusterState, feasible: Array) -> list[tuple[Plugin, int, Array]]:
        """Each scoring plugin's normalised score for all rows, as (plugin, weight, scores)."""
        prepared = self._prepared(pod, state)
        out: list[tuple[Plugin, int, Array]] = []
        for plugin, weight in self.scores:
            data = prepared.data.get(plugin.name, SKIP)
            if data is SKIP:
                continue
            scores = _call(plugin, "score", data, state, slice(0, state.size))
            if has(plugin, "normalize"):
                scores = _call(plugin, "normalize", data, scores, feasible)
            out.append((plugin, weight, scores))
        return out


def _call(plugin: Any, point: str, *arguments: Any) -> Any:
    try:
        return getattr(plugin, point)(*arguments)
    except Exception as err:  # A third party's code: its failure is this pod's, not the scheduler's.
        raise PluginError(plugin.name, point, err) from err
