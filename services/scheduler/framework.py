"""The framework: what a plugin is.

A plugin sees one pod and the whole cluster as arrays. Its extension points, each optional, in the order of their calls:

    pre_enqueue(pod)                   may the pod be queued at all?                        None or why not
    prepare(pod, state)                PreFilter, PreScore: what is worked out once a pod   data, SKIP or Rejected
    filter(data, state, rows)          which of these rows can't take it, and why           reasons as bits, 0: fits
    score(data, state, rows)           how good is each of these rows                       a number a row
    normalize(data, scores, feasible)  bring the scores of the feasible rows to 0..100      a number a row
    post_filter(pod, state, …)         no node fits: make room (preemption)                 a Candidate or None
    reserve / unreserve(pod, node)     the decision is made / was in vain; in memory only   None or why not
    permit, pre_bind(pod, node)        asynchronous, before the binding                     None or why not
    post_bind(pod, node)               the pod is bound
    rejected(pod)                      no node fits, after post_filter: clean up; never called by Explain

`rows` is a slice or an array of row numbers: `state.allocatable[:, rows]` works with both. A plugin with `local = True`
promises that a row's verdict and score depend on the pod's signature and that row alone; then they are kept, and worked
out again only for rows that changed; with `static = True` too they depend on the row's node alone, not on its pods.
`filter` answers uint64: bit i set means the i-th reason of `reasons(data)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.pod_info import PodInfo

MAX_SCORE = 100

Rows = Any


class _Skip:
    def __repr__(self) -> str:
        return "SKIP"


SKIP = _Skip()
"""From `prepare`: this plugin has nothing to say about this pod."""


class Rejected(NamedTuple):
    """From `prepare`: no node can take this pod, whatever its load."""

    reason: str


class ClusterEvent(NamedTuple):
    """Something that may make a rejected pod fit.

    `resource` "Node" or "Pod" …, `action` "Add", "Update" or "Delete".
    """

    resource: str
    action: str


Hint = Callable[[PodInfo, Any, Any], bool]
"""(waiting pod, old object, new object) to.

Is the pod worth another try? Called only for pods that the plugin rejected.
"""


class PluginError(Exception):
    """A plugin raised. The pod is not placed; the others go on."""

    def __init__(self, plugin: str, point: str, cause: Exception) -> None:
        super().__init__(f"running {point} of plugin {plugin}: {type(cause).__name__}: {cause}")


class Plugin:
    """Base of plugins; see the module's docstring. The class's name is the plugin's."""

    local: ClassVar[bool] = False
    # Of a local plugin: looks at the node only, never at what runs there.
    static: ClassVar[bool] = False
    # Whether a row that this plugin refuses could be made to fit by evicting pods.
    preemptible: ClassVar[bool] = False
    # Of a plugin that is not local: its `filter` is dear, and asked only about rows that everybody else accepts.
    narrow: ClassVar[bool] = False

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        self.arguments = arguments or {}
        self.handle = handle
        self.name = type(self).__name__
        # Set for plugins from files: their synchronous calls are limited in time.
        self.guarded = False

    def events(self) -> dict[ClusterEvent, Hint | None]:
        """What may make a pod that this plugin rejected fit; None as hint: always worth a try."""
        return {}

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        return None

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        return None

    # Plugins that filter or score define `filter` or `score`; the profile looks which of them a plugin has.

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        """The words for the bits that `filter` sets."""
        return ()

    def unresolvable(self, data: Any) -> int:
        """Bits of reasons that evicting pods can't remove. All of them unless the plugin is `preemptible`."""
        return 0 if self.preemptible else ALL_BITS

    def remedy(self, data: Any, state: ClusterState, row: int) -> str:
        """For a row that `filter` refuses: what would make it fit, as a sentence."""
        return ""

    def pre_bind_needed(self, pod: PodInfo, node: str) -> bool:
        """Whether `pre_bind` has anything to do for this pod; pods for which no plugin has are bound in batches."""
        return True

    def reserve(self, pod: PodInfo, node: str) -> str | None:
        return None

    def unreserve(self, pod: PodInfo, node: str) -> None:
        return None


ALL_BITS = 2**64 - 1


def has(plugin: Plugin, point: str) -> bool:
    """Whether the plugin takes part in this extension point."""
    own = getattr(type(plugin), point, None)
    return own is not None and own is not getattr(Plugin, point, None)


class Weighted(NamedTuple):
    """A scoring plugin and how much its score counts."""

    plugin: Plugin
    weight: int


def no_reason(rows: Rows, state: ClusterState) -> Array:
    """A filter's answer that refuses nothing."""
    return np.zeros(count_of(rows, state), dtype=np.uint64)


def count_of(rows: Rows, state: ClusterState) -> int:
    """How many rows `rows` stands for."""
    return state.size if isinstance(rows, slice) else len(rows)


def normalize(scores: Array, feasible: Array, *, reverse: bool = False) -> Array:
    """Upstream's DefaultNormalizeScore: the highest feasible score becomes 100; `reverse`: the lowest is the best."""
    highest = scores[feasible].max() if feasible.any() else 0
    if highest == 0:
        return np.full_like(scores, MAX_SCORE if reverse else 0)
    scaled = scores * MAX_SCORE // highest
    return MAX_SCORE - scaled if reverse else scaled
