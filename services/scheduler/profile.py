"""A profile: plugins in their order, run over all nodes at once, with what can be kept between pods of one signature.

`judge` is the whole of filtering and scoring for one pod. What local plugins say is kept by signature and brought up
to date from the state's journal, so that the next replica of a Deployment costs one row's work and one look over all
nodes, however many there are.
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
from services.scheduler.time_limit import time_limit

CACHE_MAX = 128

_LOWEST = np.iinfo(np.int64).min
"""What a row that does not fit ranks as."""


class Prepared:
    """What was worked out for pods of one signature.

    Over all rows: `node_fits` and `node_total`, what static plugins say; `fits` and `ranks`, all local ones together
    (`ranks` is the weighted sum, _LOWEST where the pod does not fit); `raw`, scores that are to be normalised among
    the rows that fit.
    """

    __slots__ = (
        "capacity", "data", "fits", "load_filters", "load_scores", "node_fits", "node_total", "nodes_version",
        "position", "ranks", "raw", "rejected",
    )  # fmt: skip

    def __init__(self) -> None:
        # By plugin name; SKIP where the plugin has nothing to say.
        self.data: dict[str, Any] = {}
        self.rejected: tuple[Plugin, str] | None = None
        self.capacity = 0
        self.position = -1
        self.nodes_version = -1
        self.node_fits: Array = np.zeros(0, dtype=bool)
        self.node_total: Array = np.zeros(0, dtype=np.int64)
        self.fits: Array = np.zeros(0, dtype=bool)
        self.ranks: Array = np.zeros(0, dtype=np.int64)
        self.raw: list[tuple[Plugin, int, Array]] = []
        # The local plugins that look at what runs on a row, with their data.
        self.load_filters: list[tuple[Plugin, Any]] = []
        self.load_scores: list[tuple[Plugin, int, Any]] = []


class Judgement:
    """What the plugins say of one pod on all rows.

    Which fit, and how they rank (the lowest number there is: does not fit).
    """

    __slots__ = ("feasible", "prepared", "ranks", "rejected")

    def __init__(self, prepared: Prepared, feasible: Array, ranks: Array | None) -> None:
        self.prepared = prepared
        self.feasible = feasible
        self.ranks = ranks
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
        self._global = [plugin for plugin in self.plugins if not plugin.local and has(plugin, "prepare")]
        self._global_filters = [plugin for plugin in self.filters if not plugin.local and not plugin.narrow]
        self._narrow_filters = [plugin for plugin in self.filters if not plugin.local and plugin.narrow]
        self._global_scores = [weighted for weighted in self.scores if not weighted.plugin.local]
        self._points: dict[str, list[Plugin]] = {}
        self._cache: OrderedDict[bytes, Prepared] = OrderedDict()

    def with_point(self, point: str) -> list[Plugin]:
        """The plugins that take part in an extension point, in order."""
        found = self._points.get(point)
        if found is None:
            found = self._points[point] = [plugin for plugin in self.plugins if has(plugin, point)]
        return found

    # --- one pod ------------------------------------------------------------------------------------------------------

    def judge(self, pod: PodInfo, state: ClusterState, *, score: bool = True) -> Judgement:
        """Filter all rows, and rank those that fit. The answer's arrays are not to be changed. Raises PluginError."""
        prepared = self._prepared(pod, state)
        size = state.size
        if prepared.rejected is not None:
            return Judgement(prepared, np.zeros(size, dtype=bool), None)
        data = prepared.data
        feasible, ranks = prepared.fits[:size], prepared.ranks[:size]
        refused: Array | None = None
        for plugin in self._global_filters:
            mine = data.get(plugin.name)
            if mine is not SKIP:
                found = _call(plugin, "filter", mine, state, slice(0, size)) != 0
                refused = found if refused is None else refused | found
        narrowed = refused is not None
        if refused is not None:
            feasible = feasible & ~refused
        for plugin in self._narrow_filters:
            mine = data.get(plugin.name)
            if mine is not SKIP:
                rows = np.flatnonzero(feasible)
                feasible, narrowed = feasible.copy(), True
                feasible[rows[_call(plugin, "filter", mine, state, rows) != 0]] = False
        if not score:
            return Judgement(prepared, feasible, None)
        if narrowed:
            ranks = np.where(feasible, ranks, _LOWEST)
        more = self._more_scores(prepared, state, feasible)
        if more is not None:
            ranks = np.where(feasible, ranks + more, _LOWEST)
        return Judgement(prepared, feasible, ranks)

    def _more_scores(self, prepared: Prepared, state: ClusterState, feasible: Array) -> Array | None:
        """What depends on which rows fit: scores to be normalised, and those of global plugins. None: all equal."""
        size = state.size
        total: Array | None = None
        for plugin, weight, raw in prepared.raw:
            scores = raw[:size]
            if scores.any():  # All zero makes no difference to anyone.
                scores = _call(plugin, "normalize", prepared.data[plugin.name], scores, feasible) * weight
                total = scores if total is None else total + scores
        for plugin, weight in self._global_scores:
            data = prepared.data.get(plugin.name)
            if data is SKIP:
                continue
            scores = _call(plugin, "score", data, state, slice(0, size))
            if has(plugin, "normalize"):
                scores = _call(plugin, "normalize", data, scores, feasible)
            total = scores * weight if total is None else total + scores * weight
        return total

    # --- keeping what is known ----------------------------------------------------------------------------------------

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
            if prepared.nodes_version != state.nodes_version or prepared.capacity != state.capacity:
                self._prepare(prepared, pod, state, self.plugins)
                if prepared.rejected is None:
                    self._evaluate_nodes(prepared, state)
                    self._evaluate_load(prepared, state, slice(0, state.size))
            else:
                self._prepare(prepared, pod, state, self._global)
                if prepared.rejected is None:
                    self._catch_up(prepared, state)
        except PluginError:
            self._cache.pop(signature, None)
            raise
        return prepared

    def _prepare(self, prepared: Prepared, pod: PodInfo, state: ClusterState, plugins: Sequence[Plugin]) -> None:
        prepared.rejected = None
        for plugin in plugins:
            data = _call(plugin, "prepare", pod, state)
            if isinstance(data, Rejected):
                prepared.rejected = (plugin, data.reason)
                prepared.nodes_version = -1  # The reason may go without any node changing: ask again next time.
                return
            prepared.data[plugin.name] = data

    def _evaluate_nodes(self, prepared: Prepared, state: ClusterState) -> None:
        """Start over: what static plugins say of all rows, and which plugins look at loads."""
        capacity, rows = state.capacity, slice(0, state.size)
        prepared.capacity, prepared.nodes_version = capacity, state.nodes_version
        prepared.node_fits = np.zeros(capacity, dtype=bool)
        prepared.node_total = np.zeros(capacity, dtype=np.int64)
        prepared.fits = np.zeros(capacity, dtype=bool)
        prepared.ranks = np.full(capacity, _LOWEST, dtype=np.int64)
        prepared.raw, prepared.load_filters, prepared.load_scores = [], [], []
        fits = state.valid[rows].copy()
        for plugin in self.filters:
            data = prepared.data.get(plugin.name)
            if not plugin.local or data is SKIP:
                continue
            if plugin.static:
                fits &= _call(plugin, "filter", data, state, rows) == 0
            else:
                prepared.load_filters.append((plugin, data))
        prepared.node_fits[rows] = fits
        for plugin, weight in self.scores:
            data = prepared.data.get(plugin.name)
            if not plugin.local or data is SKIP:
                continue
            if has(plugin, "normalize"):
                raw = np.zeros(capacity, dtype=np.int64)
                raw[rows] = _call(plugin, "score", data, state, rows)
                prepared.raw.append((plugin, weight, raw))
                if not plugin.static:
                    prepared.load_scores.append((plugin, 0, data))
            elif plugin.static:
                prepared.node_total[rows] += _call(plugin, "score", data, state, rows) * weight
            else:
                prepared.load_scores.append((plugin, weight, data))

    def _catch_up(self, prepared: Prepared, state: ClusterState) -> None:
        """Work out again the rows whose load changed since."""
        if prepared.position == state.position:
            return
        changed = state.changed_since(prepared.position)
        if changed is None or len(changed) > max(64, state.size // 4):
            self._evaluate_load(prepared, state, slice(0, state.size))
        else:
            rows = changed if len(changed) == 1 else list(dict.fromkeys(changed))
            self._evaluate_load(prepared, state, np.array(rows, dtype=np.intp))

    def _evaluate_load(self, prepared: Prepared, state: ClusterState, rows: Any) -> None:
        prepared.position = state.position
        fits = prepared.node_fits[rows]
        for plugin, data in prepared.load_filters:
            fits = fits & (_call(plugin, "filter", data, state, rows) == 0)
        total = prepared.node_total[rows]
        for plugin, weight, data in prepared.load_scores:
            scores = _call(plugin, "score", data, state, rows)
            if weight:
                total = total + (scores if weight == 1 else scores * weight)
            else:
                next(raw for normalized, _, raw in prepared.raw if normalized is plugin)[rows] = scores
        prepared.fits[rows] = fits
        prepared.ranks[rows] = np.where(fits, total, _LOWEST)

    # --- in detail, for diagnosis and Explain -------------------------------------------------------------------------

    def verdicts(
        self, pod: PodInfo, state: ClusterState, *, every_plugin: bool = False
    ) -> list[tuple[Plugin, Any, Array]]:
        """Each filter's answer for all rows, as (plugin, data, reason bits). Not cached: for pods that do not fit,
        and for people.

        As upstream does, a row that one plugin refuses is not shown to the next, unless `every_plugin`.
        """
        prepared = self._prepared(pod, state)
        out: list[tuple[Plugin, Any, Array]] = []
        open_rows = state.valid[: state.size].copy()
        for plugin in self.filters:
            data = prepared.data.get(plugin.name)
            if data is SKIP:
                continue
            asked = state.valid[: state.size] if every_plugin else open_rows
            if plugin.narrow:
                rows = np.flatnonzero(asked)
                bits = np.zeros(state.size, dtype=np.uint64)
                bits[rows] = _call(plugin, "filter", data, state, rows)
            else:
                bits = _call(plugin, "filter", data, state, slice(0, state.size)).copy()
            bits[~asked] = 0
            open_rows &= bits == 0
            out.append((plugin, data, bits))
        return out

    def score_details(self, pod: PodInfo, state: ClusterState, feasible: Array) -> list[tuple[Plugin, int, Array]]:
        """Each scoring plugin's normalised score for all rows, as (plugin, weight, scores)."""
        prepared = self._prepared(pod, state)
        out: list[tuple[Plugin, int, Array]] = []
        for plugin, weight in self.scores:
            data = prepared.data.get(plugin.name)
            if data is SKIP:
                continue
            scores = _call(plugin, "score", data, state, slice(0, state.size))
            if has(plugin, "normalize"):
                scores = _call(plugin, "normalize", data, scores, feasible)
            out.append((plugin, weight, scores))
        return out


PLUGIN_SECONDS_MAX = 1.0
"""How long one call of a third party's plugin may take."""


def _call(plugin: Any, point: str, *arguments: Any) -> Any:
    try:
        if plugin.guarded:
            with time_limit(PLUGIN_SECONDS_MAX):
                return getattr(plugin, point)(*arguments)
        return getattr(plugin, point)(*arguments)
    except Exception as err:  # A third party's code: its failure is this pod's, not the scheduler's.
        raise PluginError(plugin.name, point, err) from err
