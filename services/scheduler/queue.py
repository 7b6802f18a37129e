"""The pods that wait for a node, and when each is tried.

             add                  pop
    (new) ─────────> active ─────────────> (being scheduled) ──> bound, forgotten
      │ gated          ^  ^                        │ fits nowhere
      v                │  └──── back-off over ─── backoff <──┐ an event that may help
    gated ── ungated ──┘                                     │
                                              unschedulable ─┘ (or 5 minutes without one)

Active is ordered by priority, then by age. The back-off doubles with each attempt, from 1 s to 10 s. An event wakes
only pods that were rejected by a plugin which says that this event may help them. Pure: time comes in as a number.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from services.scheduler.framework import ClusterEvent, Hint
from services.scheduler.pod_info import PodInfo

BACKOFF_SECONDS_FIRST = 1.0
BACKOFF_SECONDS_MAX = 10.0
UNSCHEDULABLE_SECONDS_MAX = 300.0
"""A pod for which no event came is tried again after this: the safety net under the hints."""

ACTIVE, BACKOFF, UNSCHEDULABLE, GATED, POPPED = "active", "backoff", "unschedulable", "gated", "popped"


Group = tuple[bytes, tuple[str, ...]]
"""A pod's signature and the plugins that rejected it: pods of one group get the same answer to any event."""


class Waiting:
    """A pod in the queue. `queue` says where; entries in heaps whose `ticket` is not the pod's are stale."""

    __slots__ = (
        "added_at", "attempts", "group", "message", "plugins", "pod", "queue", "ready_at", "rejected_at", "since",
        "ticket",
    )  # fmt: skip

    def __init__(self, pod: PodInfo, now: float) -> None:
        self.pod = pod
        self.since = now
        self.added_at = now
        self.attempts = 0
        self.queue = ""
        self.ticket = 0
        self.ready_at = 0.0
        self.rejected_at = 0.0
        self.plugins: tuple[str, ...] = ()
        self.message = ""
        self.group: Group = (b"", ())


class Popped(NamedTuple):
    """A pod to be scheduled now."""

    pod: PodInfo
    attempts: int
    since: float


Less = Callable[[PodInfo, float], Any]
"""(pod, since when it waits) to what active is ordered by: the QueueSort plugin."""


def by_priority(pod: PodInfo, since: float) -> Any:
    """PrioritySort: higher priority first, then who waits longer."""
    return (-pod.priority, since)


class SchedulingQueue:
    """See the module's docstring. `hints`: for each event, what each plugin says to it."""

    def __init__(
        self,
        hints: Mapping[ClusterEvent, Mapping[str, Hint | None]] | None = None,
        *,
        sort: Less = by_priority,
        gate: Callable[[PodInfo], str | None] = lambda pod: None,
        backoff_seconds_first: float = BACKOFF_SECONDS_FIRST,
        backoff_seconds_max: float = BACKOFF_SECONDS_MAX,
    ) -> None:
        self._hints = dict(hints or {})
        self._sort = sort
        self._gate = gate
        self._first = backoff_seconds_first
        self._max = backoff_seconds_max
        self._pods: dict[str, Waiting] = {}
        self._active: list[tuple[Any, int, str]] = []
        self._backoff: list[tuple[float, int, str]] = []
        self._unschedulable: dict[str, Waiting] = {}
        self._groups: dict[Group, dict[str, Waiting]] = {}
        self._gated: dict[str, Waiting] = {}
        self._tickets = itertools.count(1)
        self.counts = {ACTIVE: 0, BACKOFF: 0, UNSCHEDULABLE: 0, GATED: 0, POPPED: 0}

    # --- moving -------------------------------------------------------------------------------------------------------

    def _move(self, waiting: Waiting, queue: str) -> None:
        if waiting.queue:
            self.counts[waiting.queue] -= 1
        if waiting.queue == UNSCHEDULABLE:
            del self._unschedulable[waiting.pod.uid]
            group = self._groups[waiting.group]
            del group[waiting.pod.uid]
            if not group:
                del self._groups[waiting.group]
        elif waiting.queue == GATED:
            del self._gated[waiting.pod.uid]
        waiting.queue = queue
        waiting.ticket = next(self._tickets)
        if queue:
            self.counts[queue] += 1
        if queue == ACTIVE:
            heapq.heappush(self._active, (self._sort(waiting.pod, waiting.since), waiting.ticket, waiting.pod.uid))
        elif queue == BACKOFF:
            heapq.heappush(self._backoff, (waiting.ready_at, waiting.ticket, waiting.pod.uid))
        elif queue == UNSCHEDULABLE:
            self._unschedulable[waiting.pod.uid] = waiting
            waiting.group = (waiting.pod.signature, waiting.plugins)
            self._groups.setdefault(waiting.group, {})[waiting.pod.uid] = waiting
        elif queue == GATED:
            self._gated[waiting.pod.uid] = waiting

    def add(self, pod: PodInfo, now: float) -> None:
        """A pod wants a node. One that is known is updated."""
        waiting = self._pods.get(pod.uid)
        if waiting is not None:
            self.update(pod, now)
            return
        waiting = self._pods[pod.uid] = Waiting(pod, now)
        self._enqueue(waiting)

    def _enqueue(self, waiting: Waiting) -> None:
        why = self._gate(waiting.pod)
        if why:
            waiting.message = why
            waiting.plugins = ("SchedulingGates",)
            self._move(waiting, GATED)
        else:
            self._move(waiting, ACTIVE)

    def update(self, pod: PodInfo, now: float) -> None:
        """The pod changed. If its specification did, what kept it off may be gone: it is tried again."""
        waiting = self._pods.get(pod.uid)
        if waiting is None:
            self.add(pod, now)
            return
        changed = waiting.pod.signature != pod.signature
        waiting.pod = pod
        if waiting.queue == GATED:
            if not self._gate(pod):
                waiting.since = now
                self._move(waiting, ACTIVE)
        elif waiting.queue == UNSCHEDULABLE and changed:
            self._wake(waiting, now)

    def remove(self, uid: str) -> None:
        """The pod is gone, or has a node."""
        waiting = self._pods.pop(uid, None)
        if waiting is not None:
            self._move(waiting, "")

    # --- scheduling ---------------------------------------------------------------------------------------------------

    def pop(self, now: float) -> Popped | None:
        """The next pod to schedule, or None. It stays known until `remove`, `rejected` or `retry`."""
        self.flush(now)
        while self._active:
            _, ticket, uid = heapq.heappop(self._active)
            waiting = self._pods.get(uid)
            if waiting is None or waiting.ticket != ticket:
                continue
            waiting.attempts += 1
            self._move(waiting, POPPED)
            return Popped(waiting.pod, waiting.attempts, waiting.added_at)
        return None

    def rejected(self, uid: str, plugins: Iterable[str], message: str, now: float) -> None:
        """A popped pod fits nowhere, because of these plugins. It waits for an event that may help."""
        waiting = self._pods.get(uid)
        if waiting is None:
            return
        waiting.plugins = tuple(plugins)
        waiting.message = message
        waiting.rejected_at = now
        waiting.ready_at = now + self.backoff_seconds(waiting.attempts)
        self._move(waiting, UNSCHEDULABLE)

    def retry(self, uid: str, message: str, now: float) -> None:
        """A popped pod failed for a reason that is not its own (a write that failed, say): again after its back-off."""
        waiting = self._pods.get(uid)
        if waiting is None:
            return
        waiting.message = message
        waiting.ready_at = now + self.backoff_seconds(waiting.attempts)
        self._move(waiting, BACKOFF)

    def backoff_seconds(self, attempts: int) -> float:
        """How long a pod rests after so many attempts."""
        return min(self._max, self._first * 2.0 ** min(max(0, attempts - 1), 30))

    def _wake(self, waiting: Waiting, now: float) -> None:
        self._move(waiting, ACTIVE if waiting.ready_at <= now else BACKOFF)

    def flush(self, now: float) -> None:
        """Move what has rested, or waited for an event long enough, on."""
        while self._backoff and self._backoff[0][0] <= now:
            _, ticket, uid = heapq.heappop(self._backoff)
            waiting = self._pods.get(uid)
            if waiting is not None and waiting.ticket == ticket:
                self._move(waiting, ACTIVE)
        # In the order in which they were rejected, so the first that is too young ends the search.
        for waiting in list(
            itertools.takewhile(
                lambda w: now - w.rejected_at >= UNSCHEDULABLE_SECONDS_MAX, self._unschedulable.values()
            )
        ):
            self._wake(waiting, now)

    def next_at(self) -> float | None:
        """When the queue will next have something that it has not now; None if only an event can bring it."""
        times = []
        while self._backoff:
            ready_at, ticket, uid = self._backoff[0]
            waiting = self._pods.get(uid)
            if waiting is not None and waiting.ticket == ticket:
                times.append(ready_at)
                break
            heapq.heappop(self._backoff)
        first = next(iter(self._unschedulable.values()), None)
        if first is not None:
            times.append(first.rejected_at + UNSCHEDULABLE_SECONDS_MAX)
        return min(times, default=None)

    def look_at_gates(self, of: Callable[[PodInfo], bool], now: float) -> int:
        """What keeps some gated pods may be gone without the pods having changed: see. How many came free."""
        freed = 0
        for waiting in list(self._gated.values()):
            if of(waiting.pod):
                waiting.message = self._gate(waiting.pod) or ""
                if not waiting.message:
                    waiting.since = now
                    self._move(waiting, ACTIVE)
                    freed += 1
        return freed

    # --- events -------------------------------------------------------------------------------------------------------

    def on_event(self, event: ClusterEvent, old: Any, new: Any, now: float) -> int:
        """Something happened in the cluster: wake the pods that it may help. How many it woke."""
        hints = self._hints.get(event)
        if not hints or not self._unschedulable:
            return 0
        # However many pods wait, an event costs a look at each kind of them.
        woken = [
            waiting
            for group in self._groups.values()
            if self._helps(next(iter(group.values())), hints, old, new)
            for waiting in group.values()
        ]
        for waiting in woken:
            self._wake(waiting, now)
        return len(woken)

    def _helps(self, waiting: Waiting, hints: Mapping[str, Hint | None], old: Any, new: Any) -> bool:
        for plugin in waiting.plugins:
            if plugin not in hints:
                continue
            hint = hints[plugin]
            try:
                if hint is None or hint(waiting.pod, old, new):
                    return True
            except Exception:  # A hint that breaks must not let the pod wait in vain.
                return True
        # Without a plugin's word (an error, say) any event is worth a try.
        return not waiting.plugins

    def wake(self, uid: str, now: float) -> None:
        """Try one pod again, after its back-off."""
        waiting = self._unschedulable.get(uid)
        if waiting is not None:
            self._wake(waiting, now)

    # --- looking ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def get(self, uid: str) -> Waiting | None:
        """A pod that waits."""
        return self._pods.get(uid)

    def waiting(self) -> list[Waiting]:
        """Every pod that waits, in no particular order."""
        return list(self._pods.values())
