"""The thin shell around one pod: observe, plan, act, report. One task a pod, woken by what changes, never by a poll.

    running ──(deleted, evicted, deadline)──► terminating ──► terminated ──► the API object is deleted ──► gone
       └──(all containers ended for good)──► over: volumes and cgroup go, dead containers stay for their logs until
       deletion

Whatever the worker does is safe to repeat: after a restart of the kubelet a new worker observes what is there and
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lightkube.models import core_v1

from machinery.api import errors, kinds
from machinery.api.objects import parse_time
from machinery.component import logs
from services.kubelet import lifecycle_metrics, pod_spec
from services.kubelet.back_off import BackOff
from services.kubelet.node import Node
from services.kubelet.pod_cleanup import PodCleanup
from services.kubelet.pod_plan import (
    CreateSandbox,
    Inputs,
    KillContainer,
    Plan,
    RemoveContainers,
    StartContainer,
    StopSandboxes,
    Waiting,
    back_off_key,
    plan_pod,
    termination_order,
)
from services.kubelet.pod_resize import PodResizer
from services.kubelet.pod_starter import PodStarter, StartFailed
from services.kubelet.probes import PodProbes
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.runtime_state import ContainerRecord, PodRuntime, State
from services.kubelet.status import OWNED_CONDITIONS, Observed, Verdict, compute_status, not_yet_over, unseen_end
from services.kubelet.status_manager import status_dict, without_none
from services.kubelet.volumes.context import VolumeError, VolumePath

log = logs.get("kubelet")
Json = dict[str, Any]

_ROUNDS_MAX = 64  # passes of plan and act without a pause; a pod has fewer steps than this from nothing to running
_RETRY_SECONDS = 2.0
_RESYNC_SECONDS = 60.0  # volumes are brought up to date this often even if no watch said so, as upstream's sync period
_FLUSH_SECONDS = 30.0
_RESIZE_RETRY_SECONDS = 5.0  # how often a resize that has no room yet, or can't shrink yet, is looked at
_DRAIN_GRACE_MIN = 2  # seconds; a shorter grace period is all the container's


class PodWorker:
    """One pod's worker. `run` it as a task; it returns when the pod is gone from this node and from the apiserver."""

    def __init__(self, node: Node, pod: core_v1.Pod, *, adopted: bool = False) -> None:
        self.pod = pod
        self.uid = pod.metadata.uid or ""
        self.runtime = PodRuntime(self.uid, observed=False)
        self.state = "syncing"
        self.error = ""
        self._node = node
        self._adopted = adopted
        self._starter = PodStarter(node)
        self._cleanup = PodCleanup(node)
        self._back_off = BackOff(10, 300)
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        # What a pass that takes long (a pull, a hook that hangs) is dropped for.
        self._interrupt = asyncio.Event()
        self._grace_changed = asyncio.Event()
        self._waiting: dict[str, Waiting] = {}
        self._held_until: dict[str, float] = {}
        self._verdict: Verdict | None = None
        self._verdict_grace: int | None = None
        self._gone_from_api = False
        self._grace_max: int | None = None
        self._resizer = PodResizer(node, self._starter)
        # The last run of each container that was removed for the pod to begin anew.
        self._removed: dict[str, ContainerRecord] = {}
        # Set when the pod is over and has given back what it held.
        self.settled = asyncio.Event()
        self._drained = False
        self._refresh_due = True
        self.status: Json = status_dict(pod)
        self.probes = PodProbes(
            node.tasks,
            node.handlers,
            self.wake,
            lambda container, reason, message: node.event(self.pod, "Warning", reason, message, container),
        )

    @property
    def volume_paths(self) -> Mapping[str, VolumePath]:
        """Where the pod's volumes are, as far as they are set up."""
        return self._starter.paths or {}

    # --- what others tell the worker

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: core_v1.Pod) -> None:
        """The pod's object changed."""
        before = pod_spec.grace_period_seconds(self.pod)
        self.pod = pod
        if pod.metadata.deletionTimestamp is not None:
            if self._ending.is_set() and pod_spec.grace_period_seconds(pod) < before:
                self._grace_changed.set()
            self._begin_ending()
        self.wake()

    def removed(self, grace_seconds: int | None = None) -> None:
        """The pod's object is gone from the apiserver (or its manifest from this node).

        With `grace_seconds` it gets no more than that from here: nobody waits for it any more.
        """
        self._gone_from_api = True
        if grace_seconds is not None:
            self._grace_max = grace_seconds
            self._grace_changed.set()
        self._begin_ending()
        self.wake()

    def observe(self, runtime: PodRuntime) -> None:
        """The runtime's state changed.

        An event that is older than what the worker has looked up itself says nothing new, and acting on it would undo
        what was done since.
        """
        if runtime.at < self.runtime.at:
            return
        if runtime != self.runtime or not self.runtime.observed:
            self.runtime = runtime
            self.wake()

    def refresh(self) -> None:
        """Something below changed and it is not known what: look before the next plan."""
        self._refresh_due = True
        self.wake()

    def end(self, verdict: Verdict, grace_seconds: int | None = None) -> None:
        """End the pod for good: evicted, over its deadline, on a node that shuts down."""
        self._verdict = verdict
        self._verdict_grace = grace_seconds
        self._interrupt.set()
        self.wake()

    def _begin_ending(self) -> None:
        self._ending.set()
        self._interrupt.set()

    # --- the life of the pod

    async def run(self) -> None:
        """From adoption or start to the end."""
        if self.pod.metadata.deletionTimestamp is not None:
            self._begin_ending()
        try:
            while not self._ending.is_set():
                self._interrupt.clear()
                delay = await self._interruptible(self._pass())
                await self._pause(delay)
            await self._terminate()
        finally:
            self.probes.stop()

    async def _pause(self, seconds: float | None) -> None:
        """Until woken, or for at most so long."""
        if self._ending.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._longest_pause(seconds)):
                await self._wake.wait()

    def _longest_pause(self, seconds: float | None) -> float | None:
        if not self._node.real_files:
            return seconds  # no volumes to keep fresh
        return _RESYNC_SECONDS if seconds is None else min(seconds, _RESYNC_SECONDS)

    async def _interruptible(self, work: Awaitable[float | None]) -> float | None:
        """Do a pass, but drop it when the pod is to end; the next one follows at once."""
        task = asyncio.ensure_future(work)
        interrupt = asyncio.ensure_future(self._interrupt.wait())
        try:
            await asyncio.wait((task, interrupt), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            return 0.0
        finally:
            for left in (task, interrupt):
                if not left.done():
                    left.cancel()
                    await asyncio.wait((left,))

    async def _pass(self) -> float | None:
        """Plan and act until there is nothing to do; seconds until to look again, None for when something changes."""
        self._wake.clear()
        try:
            delay = await self._sync()
        except RuntimeFailure as error:
            delay = self._failed(error.message)
        except VolumeError as error:
            self._node.event(self.pod, "Warning", "FailedMount", str(error))
            self._report(lazy=True)
            delay = self._failed(str(error))
        except errors.ApiError as error:
            delay = self._failed(str(error))
        else:
            self.error = ""
            self.state = "idle"
        return delay

    def _failed(self, message: str) -> float:
        if message != self.error:
            log.warning("pod could not be synced, trying again", pod=pod_spec.key(self.pod), error=message)
        self.error = message
        self._refresh_due = True
        return _RETRY_SECONDS

    async def _sync(self) -> float | None:
        self.state = "syncing"
        if self._refresh_due or not self.runtime.observed:
            self._refresh_due = False
            await self._look()
        if not self.runtime.sandboxes and self._verdict is None and not pod_spec.finished(self.pod):
            self._report(lazy=True)
        elif unseen_end(self.status, self.runtime):
            # Before what follows from it, which may take long: people and controllers wait for this.
            self._report(over=False)
        self._check_deadline()
        if self._verdict is not None and not self.settled.is_set():
            await self._end_by_verdict()
            return None
        for _ in range(_ROUNDS_MAX):
            plan = plan_pod(self._inputs())
            if not self._due(plan):
                break
            await self._act(plan)
            await self._look()
            self._follow_probes()
        else:
            plan = Plan(requeue_after_seconds=_RETRY_SECONDS)
        self._merge_waiting(plan)
        self._follow_probes()
        if plan.over:
            await self._settle()
        else:
            if await self._resizer.resize(self.pod, self.runtime, self.status):
                self.refresh()
            await self._maintain()
        self._report()
        return self._next_look(plan)

    async def _look(self) -> None:
        """Ask the runtime. An event that overtook the answer is newer than it."""
        found = await self._node.runtime.pod(self.uid)
        if found.at >= self.runtime.at:
            self.runtime = found

    def _due(self, plan: Plan) -> bool:
        """Whether anything of the plan can be done now."""
        return any(not (isinstance(a, StartContainer) and self._held_back(a)) for a in plan.actions)

    def _inputs(self) -> Inputs:
        return Inputs(self.pod, self.runtime, self._node.clock(), self._back_off, self.probes.view(), self._removed)

    def _merge_waiting(self, plan: Plan) -> None:
        """Reasons of this pass replace older ones; a container that runs waits for nothing."""
        for name, waiting in plan.waiting.items():
            if waiting.reason == "CrashLoopBackOff" and self._waiting.get(name) != waiting:
                text = f"Back-off restarting failed container {name} in pod {pod_spec.full_name(self.pod)}"
                self._node.event(self.pod, "Warning", "BackOff", text, name)
        self._waiting.update(plan.waiting)
        for name in list(self._waiting):
            latest = self.runtime.latest(name)
            if latest is not None and latest.state is State.RUNNING:
                del self._waiting[name]

    def _next_look(self, plan: Plan) -> float | None:
        delays = [plan.requeue_after_seconds] if plan.requeue_after_seconds is not None else []
        now = self._node.clock()
        delays.extend(max(0.05, until - now) for until in self._held_until.values())
        if self._resizer.waits:
            delays.append(_RESIZE_RETRY_SECONDS)
        deadline = self._deadline_left()
        if deadline is not None:
            delays.append(max(0.0, deadline))
        return min(delays, default=None)

    # --- acting

    async def _act(self, plan: Plan) -> None:
        """Do the plan's actions in order. What a container's start failed of is kept for its status."""
        ips = self.runtime.ips
        for action in plan.actions:
            if isinstance(action, CreateSandbox):
                await self._create_sandbox(action)
            elif isinstance(action, StopSandboxes):
                for sandbox_id in action.ids:
                    await self._node.runtime.stop_sandbox(sandbox_id)
            elif isinstance(action, KillContainer):
                await self._kill(action, ips)
            elif isinstance(action, RemoveContainers):
                await self._remove(action)
            else:
                await self._start(action)

    async def _create_sandbox(self, action: CreateSandbox) -> None:
        self._starter.paths = None
        if action.attempt > 0:
            text = "Pod sandbox changed, it will be killed and re-created."
            self._node.event(self.pod, "Normal", "SandboxChanged", text)
        lifecycle_metrics.pod_started(self.pod)
        try:
            await self._starter.create_sandbox(self.pod, action.attempt)
        except RuntimeFailure as error:
            lifecycle_metrics.pod_started(self.pod, error.message)
            self._node.event(
                self.pod, "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error.message}"
            )
            raise

    async def _kill(self, action: KillContainer, ips: tuple[str, ...]) -> None:
        record = next((c for c in self.runtime.containers if c.id == action.id), None)
        if record is None:
            return
        grace = pod_spec.grace_period_seconds(self.pod) if action.grace_seconds is None else action.grace_seconds
        await self._starter.kill(self.pod, record, grace, action.message, ips)

    async def _remove(self, action: RemoveContainers) -> None:
        """Runs go, their logs stay until the pod is deleted."""
        records = {record.id: record for record in self.runtime.containers}
        for container_id in action.ids:
            await self._node.runtime.remove_container(container_id)
            record = records[container_id]
            known = self._removed.get(record.name)
            if known is None or known.restart_count <= record.restart_count:
                self._removed[record.name] = record

    async def _start(self, action: StartContainer) -> None:
        """Start a container. A failure is noted and holds the container back; the pod's others go on."""
        if self._held_back(action):
            return
        await self._starter.prepare(self.pod)
        self._note_restart(action)
        try:
            await self._starter.start(self.pod, action, self.runtime)
        except StartFailed as failure:
            lifecycle_metrics.container_started(self.pod, action.name, failure.waiting.reason)
            self._waiting[action.name] = failure.waiting
            self._held_until[action.name] = self._node.clock() + self._hold_seconds(action.name)
            return
        lifecycle_metrics.container_started(self.pod, action.name)
        self._waiting.pop(action.name, None)
        self._held_until.pop(action.name, None)
        started = pod_spec.find_container(self.pod, action.name)
        if started is not None:
            self._resizer.started(started)

    def _held_back(self, action: StartContainer) -> bool:
        """A container whose start has just failed is not tried again in the same moment."""
        return self._held_until.get(action.name, 0.0) > self._node.clock()

    def _hold_seconds(self, name: str) -> float:
        container = pod_spec.find_container(self.pod, name)
        pull = self._node.images.retry_after_seconds(self.pod, container) if container is not None else 0.0
        # Between the first words of a failure and "BackOff" a moment passes, so that both are seen.
        return min(pull, _RETRY_SECONDS) if pull else _RETRY_SECONDS

    def _note_restart(self, action: StartContainer) -> None:
        """The next end of this container is a crash in a row: its back-off doubles from here."""
        latest = self.runtime.latest(action.name)
        if latest is not None and latest.state is State.EXITED:
            self._back_off.next(back_off_key(self.pod, action.name), latest.finished_at / 1e9)

    def _follow_probes(self) -> None:
        running = {}
        for record in reversed(self.runtime.containers):
            if record.state is State.RUNNING:
                running[record.name] = record
        self.probes.reconcile(
            self.pod, running, self._node.ips if self.pod.spec.hostNetwork else self.runtime.ips, adopted=self._adopted
        )
        self._adopted = False

    async def _maintain(self) -> None:
        """What a running pod needs besides: fresh volumes, and no more dead containers than one a name."""
        node = self._node
        if node.real_files and self.runtime.ready_sandbox is not None:
            if self._starter.paths is None:
                await self._starter.prepare(self.pod)
            else:
                await node.volumes.refresh(self.pod, self._facts)
        await self._cleanup.drop_old_runs(self.pod, self.runtime)

    def _facts(self):  # type: ignore[no-untyped-def]
        return self._node.facts(self._node.ips if self.pod.spec.hostNetwork else self.runtime.ips)

    # --- reporting

    def _report(self, *, lazy: bool = False, terminated: bool = False, over: bool = True) -> asyncio.Future[bool]:
        """Tell the apiserver. A pod that is not `over` for certain, as something of it may run, is not called so."""
        api_status = status_dict(self.pod)
        previous = dict(self.status)
        # Others' conditions are theirs: always as the apiserver has them.
        own = [c for c in previous.get("conditions") or () if c["type"] in OWNED_CONDITIONS]
        foreign = [c for c in api_status.get("conditions") or () if c["type"] not in OWNED_CONDITIONS]
        previous["conditions"] = [*foreign, *own]
        observed = Observed(
            pod=self.pod,
            runtime=self.runtime,
            now=self._node.clock(),
            previous=previous,
            probes=self.probes.view(),
            waiting=self._waiting,
            host_ips=self._node.ips,
            verdict=self._verdict,
            terminated=terminated,
            applied=self._resizer.applied,
            applied_pod=self._resizer.applied_pod,
            removed=self._removed,
            resize=self._resizer.pending,
            recursive_read_only=self._node.volumes.recursive_read_only(),
        )
        before, self.status = self.status, without_none(compute_status(observed))
        if not over:
            self.status = not_yet_over(self.status, before)
        lifecycle_metrics.status_changed(before, self.status)
        return self._node.statuses.submit(self.pod, self.status, api_status=api_status, lazy=lazy)

    # --- ends

    def _deadline_left(self) -> float | None:
        seconds = self.pod.spec.activeDeadlineSeconds
        start = self.status.get("startTime")
        if seconds is None or start is None or self.status.get("phase") in ("Succeeded", "Failed"):
            return None
        return parse_time(start).timestamp() + seconds - self._node.clock()

    def _check_deadline(self) -> None:
        left = self._deadline_left()
        if left is not None and left <= 0 and self._verdict is None and not pod_spec.finished(self.pod):
            self._verdict = Verdict("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self._node.event(self.pod, "Normal", "DeadlineExceeded", self._verdict.message)

    async def _end_by_verdict(self) -> None:
        grace = pod_spec.grace_period_seconds(self.pod) if self._verdict_grace is None else self._verdict_grace
        await self._kill_all(lambda: grace)
        await self._look()
        await self._settle()
        self._report(terminated=True)

    async def _settle(self) -> None:
        """The pod is over but not deleted: give back what it held besides its dead containers and their logs."""
        if self.settled.is_set():
            return
        self.probes.stop()
        await self._cleanup.release_resources(self.pod)
        self._starter.paths = None
        self.settled.set()

    async def _kill_all(self, grace: Callable[[], int]) -> None:
        """End every container in order, each within what is left of the grace period, then stop the sandboxes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        ips = self.runtime.ips
        for phase in termination_order(self.pod, self.runtime):
            left = max(0, grace() - int(loop.time() - began))
            await asyncio.gather(
                *(self._starter.kill(self.pod, c, left, f"Stopping container {c.name}", ips) for c in phase)
            )
        for sandbox in self.runtime.sandboxes:
            if sandbox.ready:
                await self._node.runtime.stop_sandbox(sandbox.id)

    async def _terminate(self) -> None:
        """End the pod, release all it had, then let go of its API object. Each step is tried until it works."""
        self.state = "terminating"
        self.probes.stop_restarting()
        await self._until_done(self._end_containers)
        self.probes.stop()
        self._report(terminated=True)
        await self._until_done(lambda: self._cleanup.release_resources(self.pod))
        if not self._gone_from_api:
            await self._until_done(self._delete_object)
        await self._until_done(lambda: self._cleanup.remove_all(self.pod, self.runtime))
        self._node.statuses.forget(self.uid)
        self._node.objects.release(self.uid)
        self._node.images.forget(self.uid)
        self.state = "gone"

    def _grace_seconds(self) -> int:
        asked = pod_spec.grace_period_seconds(self.pod)
        return asked if self._grace_max is None else min(asked, self._grace_max)

    async def _end_containers(self) -> None:
        """Kill with the present grace period; begin again with the shorter one if it is shortened meanwhile."""
        await self._look()
        self._report(lazy=True)
        await self._drain()
        while True:
            self._grace_changed.clear()
            kill = asyncio.ensure_future(self._kill_all(self._grace_seconds))
            changed = asyncio.ensure_future(self._grace_changed.wait())
            try:
                await self._report_until_one_is_done(kill, changed)
                if kill.done():
                    kill.result()
                    break
            finally:
                for left in (kill, changed):
                    if not left.done():
                        left.cancel()
                        await asyncio.wait((left,))
        await self._look()

    async def _report_until_one_is_done(self, *ends: asyncio.Future[Any]) -> None:
        """Services go on being told whether the pod is ready: a server that drains says so by its readiness probe."""
        while not any(end.done() for end in ends):
            self._wake.clear()
            woken = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((*ends, woken), return_when=asyncio.FIRST_COMPLETED)
                if woken.done():
                    self._report()
            finally:
                woken.cancel()

    async def _drain(self) -> None:
        """Let a ready pod serve on until Services have stopped sending to it: its endpoints go with its deletion, but
        not at once.

        A preStop hook is the pod's own way to wait, and a pod that is to end at once does.
        """
        seconds = self._node.endpoint_drain_seconds
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in self.status.get("conditions") or ())
        hooked = any(c.lifecycle and c.lifecycle.preStop for c in self.pod.spec.containers)
        grace = pod_spec.grace_period_seconds(self.pod)
        if seconds <= 0 or not ready or hooked or grace < _DRAIN_GRACE_MIN or self._gone_from_api or self._drained:
            return
        self._drained = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, grace / 2)):
                await self._grace_changed.wait()

    async def _delete_object(self) -> None:
        """Tell the last status, then delete the object.

        The apiserver keeps it until the kubelet says that nothing runs any more.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                if not await self._report(terminated=True):
                    return
        if self.pod.metadata.deletionTimestamp is None:
            return
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            await self._node.client.delete(
                kinds.POD, self.pod.metadata.name or "", self.pod.metadata.namespace or "", grace_period_seconds=0,
                uid=self.uid,
            )  # fmt: skip

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        pause = 0.2
        while True:
            try:
                await step()
            except (RuntimeFailure, errors.ApiError, OSError) as error:
                if str(error) != self.error:
                    log.warning("pod could not be ended, trying again", pod=pod_spec.key(self.pod), error=str(error))
                self.error = str(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10.0)
            else:
                self.error = ""
                return
