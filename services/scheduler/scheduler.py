"""The shell: watches feed the state and the queue, the loop takes pods, decides, assumes and hands them to the binder.

Between taking a pod and assuming it nothing waits, so no event can come in between: a decision is made on one state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np

from machinery.api import kinds, objects, selectors
from machinery.api.errors import ApiError, Conflict, NotFound, ServiceUnavailable
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.informer import Informer, wait_synced
from machinery.component import logs
from services.scheduler import instruments
from services.scheduler.bind import Binder, Binding
from services.scheduler.cluster_state import ClusterState
from services.scheduler.conditions import SCHEDULER_ERROR, UNSCHEDULABLE, ConditionWriter
from services.scheduler.devices.store import Devices
from services.scheduler.diagnosis import Diagnosis
from services.scheduler.evict import evict
from services.scheduler.framework import ClusterEvent, Hint, PluginError, has
from services.scheduler.objects import DisruptionBudget, Node, Pod, decode_disruption_budget, decode_node, decode_pod
from services.scheduler.owners import OwnerSelectors
from services.scheduler.pod_info import PodInfo
from services.scheduler.preempt import Budget, Candidate
from services.scheduler.profile import Profile
from services.scheduler.queue import GATED, Popped, SchedulingQueue
from services.scheduler.schedule import decide
from services.scheduler.volumes import Volumes

SLICE_SECONDS = 0.02
"""How long decisions may keep the event loop to themselves."""
BATCH_PODS_MAX = 500
SYNC_SECONDS_MAX = 60.0

log = logs.get("scheduler")


class Scheduler:
    """One scheduler; it may serve several profiles, by spec.schedulerName."""

    def __init__(
        self,
        client: ApiClient,
        profiles: Callable[[Any], dict[str, Profile]],
        recorder: EventRecorder,
        *,
        backoff_seconds_first: float = 1.0,
        backoff_seconds_max: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        random: np.random.Generator | None = None,
    ) -> None:
        self.client = client
        self.state = ClusterState()
        self.owners = OwnerSelectors(client)
        self.volumes = Volumes(client)
        self.devices = Devices(client)
        # For plugins that write: fenced by our leadership once we lead.
        self.writer = client
        self._volumes_changed = asyncio.Event()
        self._devices_changed = asyncio.Event()
        self.profiles = profiles(self)
        self.recorder = recorder
        self.conditions = ConditionWriter(client)
        self.clock = clock
        self.random = random or np.random.default_rng()
        self.queue = SchedulingQueue(
            _hints(self.profiles), gate=self._gate,
            backoff_seconds_first=backoff_seconds_first, backoff_seconds_max=backoff_seconds_max,
        )  # fmt: skip
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        # What preemption said during the present decision: the node where room is kept from then on, or "": nowhere.
        self._room: dict[str, str] = {}
        self.pods: Informer[Pod] = Informer(client, kinds.POD, decode=decode_pod)
        self.nodes: Informer[Node] = Informer(client, kinds.NODE, decode=decode_node)
        self.disruptions: Informer[DisruptionBudget] = Informer(
            client, kinds.POD_DISRUPTION_BUDGET, decode=decode_disruption_budget
        )
        self.namespaces: Informer[Any] = Informer(client, kinds.NAMESPACE, decode=objects.decode_partial)
        # Handlers for nodes and namespaces come first, so that pods find what they refer to.
        self.nodes.add_handler(self._on_node)
        self.namespaces.add_handler(self._on_namespace)
        self.pods.add_handler(self._on_pod)
        for informer in self.volumes.informers:
            informer.add_handler(partial(self._on_volume, informer.kind.kind))
        for informer in self.devices.informers:
            informer.add_handler(partial(self._on_device, informer.kind.kind))
        instruments.watch_queue(self.queue)
        instruments.cache_size.labels("nodes").set_function(lambda: self.state.node_count)
        instruments.cache_size.labels("pods").set_function(lambda: self.state.pod_count)

    @property
    def informers(self) -> list[Informer[Any]]:
        """What has to run, and to be synced before anything is decided."""
        return [
            self.nodes,
            self.namespaces,
            self.pods,
            self.disruptions,
            *self.owners.informers,
            *self.volumes.informers,
            *self.devices.informers,
        ]

    def budgets(self) -> list[Budget]:
        """For plugins: the PodDisruptionBudgets."""
        return [
            Budget(
                pdb.metadata.namespace, selectors.from_label_selector(pdb.spec.selector), pdb.status.disruptionsAllowed
            )
            for pdb in self.disruptions.lister
        ]

    def default_selector(self, pod: PodInfo) -> Any:
        """For plugins: the selector of the Services and controllers that the pod belongs to."""
        return self.owners.selector_of(pod)

    # --- watches ------------------------------------------------------------------------------------------------------

    def _gate(self, pod: PodInfo) -> str | None:
        profile = self.profiles.get(_scheduler_name(pod.pod))
        for plugin in profile.with_point("pre_enqueue") if profile else ():
            why = plugin.pre_enqueue(pod)
            if why:
                return why
        return None

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.state.remove_node(old.metadata.name)
            self._event(ClusterEvent("Node", "Delete"), old, None)
        elif old is None or not _same_node(old, new):
            self.state.set_node(new)
            self._event(ClusterEvent("Node", "Update" if old else "Add"), old, new)

    def _on_volume(self, kind: str, old: Any, new: Any) -> None:
        """A claim, volume, storage class or CSI node changed."""
        self._volumes_changed.set()
        self._volumes_changed = asyncio.Event()
        action = "Delete" if new is None else "Update" if old is not None else "Add"
        self._event(ClusterEvent(kind, action), old, new)

    def _on_device(self, kind: str, old: Any, new: Any) -> None:
        """A claim to devices, a class of them or what a driver offers changed."""
        self._devices_changed.set()
        self._devices_changed = asyncio.Event()
        if kind == kinds.RESOURCE_CLAIM.kind and self.queue.look_at_gates(_claims_devices, self.clock()):
            self._wake.set()
        if kind == kinds.DEVICE_CLASS.kind:
            # Extended resources may be had from devices now, or not any more: nothing that is known of nodes holds.
            self.state.nodes_version += 1
        action = "Delete" if new is None else "Update" if old is not None else "Add"
        self._event(ClusterEvent(kind, action), old, new)

    def devices_changed(self) -> asyncio.Event:
        """For plugins: what the next change of a claim to devices sets."""
        return self._devices_changed

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """For plugins: do this in the background, as long as we lead."""
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work, name=name)

    def volumes_changed(self) -> asyncio.Event:
        """For plugins: what the next change of a claim or volume sets."""
        return self._volumes_changed

    def _on_namespace(self, old: Any, new: Any) -> None:
        name = (new or old).metadata.name
        self.state.set_namespace(name, (new.metadata.labels or {}) if new is not None else None)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or _has_ended(new):
            assert new is not None or old is not None
            self._pod_left((new or old).metadata.uid)  # type: ignore[union-attr]
        elif new.spec.nodeName:
            self._pod_placed(PodInfo(new), newly=old is None or not old.spec.nodeName)
        elif _scheduler_name(new) in self.profiles:
            self._pod_waits(new)

    def _pod_left(self, uid: str) -> None:
        self.queue.remove(uid)
        self.conditions.forget(uid)
        self.state.withdraw(uid)
        info = self.state.remove_pod(uid)
        if info is not None:
            self._event(ClusterEvent("Pod", "Delete"), info, None)

    def _pod_placed(self, info: PodInfo, *, newly: bool) -> None:
        """A pod on a node. `newly`: the watch shows that for the first time, though we may have assumed it before."""
        self.queue.remove(info.uid)
        self.conditions.forget(info.uid)
        self.state.withdraw(info.uid)
        before = self.state.pod(info.uid)
        node = info.pod.spec.nodeName
        assert node
        self.state.set_pod(info, node)
        if before is None or newly:
            self._event(ClusterEvent("Pod", "Add"), None, info)
        elif _differs(before, info):
            self._event(ClusterEvent("Pod", "Update"), before, info)

    def _pod_waits(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        if pod.metadata.deletionTimestamp is not None:
            self.queue.remove(uid)
        elif self.state.node_of(uid) is None:  # An assumed pod is on its way; its binding decides.
            info = PodInfo(pod)
            self.queue.add(info, self.clock())
            waiting = self.queue.get(uid)
            if waiting is not None and waiting.queue == GATED and pod.spec.resourceClaims:
                self._say_gated(info, waiting.message)
            if pod.status.nominatedNodeName:
                # Also after a restart: the room that was made for the pod is kept for it.
                self._keep_room(info, pod.status.nominatedNodeName)
            self._wake.set()

    def _say_gated(self, pod: PodInfo, why: str) -> None:
        """A pod that names a claim which is not there says so. One made from a template comes in a moment, and its
        controller says what keeps it."""
        by_name = any(claim.resourceClaimName for claim in pod.pod.spec.resourceClaims or ())
        if by_name and not pod.pod.spec.schedulingGates:
            self.conditions.set(pod, UNSCHEDULABLE, why)

    def _event(self, event: ClusterEvent, old: Any, new: Any) -> None:
        if self.queue.on_event(event, old, new, self.clock()):
            self._wake.set()

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def follow(self, tasks: asyncio.TaskGroup) -> None:
        """Start the watches; also without leading, so that a new leader knows everything at once."""
        for informer in self.informers:
            tasks.create_task(informer.run(), name=f"informer {informer.kind.resource}")

    async def run(self, client: ApiClient) -> None:
        """Schedule for ever, writing through `client` (fenced by our leadership)."""
        self.conditions.client = self.writer = client
        await wait_synced(*self.informers, timeout=SYNC_SECONDS_MAX)
        log.info("scheduling", nodes=self.state.node_count, waiting=len(self.queue))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.conditions.run(), name="pod conditions")
            self._tasks = tasks
            binder = Binder(client, tasks, self._bound)
            while True:
                bindings = self._decide_some()
                if bindings:
                    await binder.send(self._without_delay(bindings, binder))
                    await asyncio.sleep(0)
                else:
                    await self._wait()

    def _without_delay(self, bindings: list[Binding], binder: Binder) -> list[Binding]:
        """Bindings that can be sent now; the others go their own way once their plugins are done."""
        out = []
        for binding in bindings:
            profile = self.profiles[_scheduler_name(binding.pod.pod)]
            points = profile.with_point("permit") + profile.with_point("pre_bind")
            waiting = [p for p in points if has(p, "permit") or p.pre_bind_needed(binding.pod, binding.node)]
            if waiting and self._tasks is not None:
                self._tasks.create_task(self._bind_slowly(binding, profile, binder), name=f"bind {binding.pod.key}")
            else:
                out.append(binding)
        return out

    async def _bind_slowly(self, binding: Binding, profile: Profile, binder: Binder) -> None:
        """Permit and PreBind of one pod, then its binding."""
        pod, node = binding.pod, binding.node
        for point in ("permit", "pre_bind"):
            for plugin in profile.with_point(point):
                if point == "pre_bind" and not plugin.pre_bind_needed(pod, node):
                    continue
                try:
                    why = await getattr(plugin, point)(pod, node)
                except Exception as err:  # A third party's code: its failure is this pod's, not the scheduler's.
                    why = str(PluginError(plugin.name, point, err))
                if why:
                    self._bound(binding, ServiceUnavailable(why))
                    return
        await binder.send([binding])

    async def _wait(self) -> None:
        """Until an event wakes the queue or something in it has rested long enough."""
        if self.queue.counts["active"]:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        at = self.queue.next_at()
        seconds = None if at is None else max(0.0, at - self.clock())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _decide_some(self) -> list[Binding]:
        """Decide about pods of the queue for a slice of time, and assume them. Nothing in here waits."""
        end = time.perf_counter() + SLICE_SECONDS
        bindings: list[Binding] = []
        while len(bindings) < BATCH_PODS_MAX:
            popped = self.queue.pop(self.clock())
            if popped is None:
                break
            binding = self._decide(popped)
            if binding is not None:
                bindings.append(binding)
            if time.perf_counter() >= end:
                break
        return bindings

    def _decide(self, popped: Popped) -> Binding | None:
        pod = popped.pod
        name = _scheduler_name(pod.pod)
        profile = self.profiles[name]
        begin = time.perf_counter()
        kept = self.state.lesser_nominated(pod)
        for info, _ in kept:
            self.state.withdraw(info.uid)
        placed = False
        try:
            decision = decide(pod, self.state, profile, self.random)
            placed = decision.row is not None
            if decision.diagnosis is not None:
                self._rejected(pod, name, decision.diagnosis)
        except PluginError as err:
            self._failed(pod, name, err)
            return None
        finally:
            for info, node in kept:
                if not (placed and info.uid == pod.uid):
                    self._keep_room(info, node)
        instruments.algorithm_seconds.observe(time.perf_counter() - begin)
        if decision.row is None:
            if pod.uid in self._room:
                room = self._room.pop(pod.uid)
                if room:
                    self._keep_room(pod, room)
                else:
                    self.state.withdraw(pod.uid)
            return None
        node = self.state.name(decision.row)
        self.state.assume(pod, decision.row)
        for plugin in profile.with_point("reserve"):
            why = plugin.reserve(pod, node)
            if why:
                self._undo(pod, node, profile)
                self.queue.retry(pod.uid, why, self.clock())
                return None
        return Binding(popped, node)

    def _undo(self, pod: PodInfo, node: str, profile: Profile) -> None:
        for plugin in reversed(profile.with_point("unreserve")):
            plugin.unreserve(pod, node)
        self.state.forget(pod.uid)

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def _rejected(self, pod: PodInfo, profile: str, diagnosis: Diagnosis) -> None:
        instruments.attempts.labels("unschedulable", profile).inc()
        candidate = self._make_room(pod, profile, diagnosis)
        message = diagnosis.message
        self.queue.rejected(pod.uid, diagnosis.plugins, message, self.clock())
        for plugin in self.profiles[profile].with_point("rejected"):
            plugin.rejected(pod)  # type: ignore[attr-defined]
        nominated = self.state.name(candidate.row) if candidate else None
        if candidate is None and pod.pod.status.nominatedNodeName and not diagnosis.victims_leaving:
            # What was evicted did not help after all: nobody else shall be kept from that room.
            self._room[pod.uid] = nominated = ""
        self.conditions.set(pod, UNSCHEDULABLE, message, nominated)
        self.recorder.record(pod.pod, "Warning", "FailedScheduling", message, "Scheduling")

    def _make_room(self, pod: PodInfo, name: str, diagnosis: Diagnosis) -> Candidate | None:
        """Ask the PostFilter plugins; what they plan is carried out in the background."""
        profile = self.profiles[name]
        for plugin in profile.with_point("post_filter"):
            candidate: Candidate | None = plugin.post_filter(  # type: ignore[attr-defined]
                pod, self.state, profile, diagnosis, self.random
            )
            if candidate is not None:
                instruments.preemption_attempts.inc()
                instruments.preemption_victims.observe(len(candidate.victims))
                self._room[pod.uid] = self.state.name(candidate.row)
                for victim in candidate.victims:
                    said = f"Preempted by pod {pod.uid} on node {self.state.name(candidate.row)}"
                    self.recorder.record(victim.pod, "Normal", "Preempted", said, "Preempting")
                if self._tasks is not None:
                    self._tasks.create_task(self._evict(pod, name, candidate.victims), name=f"preempt for {pod.key}")
                return candidate
        return None

    def _keep_room(self, pod: PodInfo, node: str) -> None:
        if pod.uid in self.queue and node in self.state.row_of:
            self.state.nominate(pod, node)

    async def _evict(self, pod: PodInfo, name: str, victims: tuple[PodInfo, ...]) -> None:
        if not await evict(self.conditions.client, pod, name, victims):
            self.state.withdraw(pod.uid)
            self.queue.wake(pod.uid, self.clock())
            self._wake.set()

    def _failed(self, pod: PodInfo, profile: str, err: PluginError) -> None:
        instruments.attempts.labels("error", profile).inc()
        log.error("pod could not be judged", pod=pod.key, exc_info=err.__cause__ or err)
        self.queue.retry(pod.uid, str(err), self.clock())
        self.conditions.set(pod, SCHEDULER_ERROR, str(err))
        self.recorder.record(pod.pod, "Warning", "FailedScheduling", str(err), "Scheduling")

    def _bound(self, binding: Binding, error: ApiError | None) -> None:
        pod = binding.pod
        name = _scheduler_name(pod.pod)
        if error is None:
            self.queue.remove(pod.uid)
            instruments.attempts.labels("scheduled", name).inc()
            attempts = str(min(binding.popped.attempts, 16))
            instruments.sli_seconds.labels(attempts).observe(self.clock() - binding.popped.since)
            message = f"Successfully assigned {pod.key} to {binding.node}"
            self.recorder.record(pod.pod, "Normal", "Scheduled", message, "Binding")
            for plugin in self.profiles[name].with_point("post_bind"):
                plugin.post_bind(pod, binding.node)  # type: ignore[attr-defined]
            return
        instruments.attempts.labels("error", name).inc()
        self._undo(pod, binding.node, self.profiles[name])
        if isinstance(error, NotFound):
            self.queue.remove(pod.uid)
            return
        # A Conflict says that the pod has a node already: the watch brings it, and the queue forgets the pod then.
        self.queue.retry(pod.uid, error.message, self.clock())
        if not isinstance(error, Conflict):
            log.info("binding refused", pod=pod.key, node=binding.node, error=error.message)
            self.recorder.record(
                pod.pod, "Warning", "FailedScheduling", f"binding rejected: {error.message}", "Binding"
            )
        self._wake.set()


def _differs(old: PodInfo, new: PodInfo) -> bool:
    """Whether anything changed of a placed pod that other pods may wait for."""
    labels, terminating = old.pod.metadata.labels != new.pod.metadata.labels, old.terminating != new.terminating
    return labels or terminating or old.requests != new.requests


def _claims_devices(pod: PodInfo) -> bool:
    return bool(pod.pod.spec.resourceClaims)


def _scheduler_name(pod: Pod) -> str:
    return pod.spec.schedulerName or "default-scheduler"


def _has_ended(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


def _same_node(old: Node, new: Node) -> bool:
    """Whether nothing changed that scheduling looks at; heartbeats change nothing."""
    return (
        old.metadata.uid == new.metadata.uid
        and old.metadata.labels == new.metadata.labels
        and old.spec == new.spec
        and old.status == new.status
    )


def _hints(profiles: dict[str, Profile]) -> dict[ClusterEvent, dict[str, Hint | None]]:
    out: dict[ClusterEvent, dict[str, Hint | None]] = {}
    for profile in profiles.values():
        for plugin in profile.plugins:
            for event, hint in plugin.events().items():
                out.setdefault(event, {})[plugin.name] = hint
    return out
