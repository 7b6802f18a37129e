"""Liveness, readiness and startup probes: one task a probe of a running container, its verdict told when it changes.

    readiness  begins as failed       liveness  begins as well       startup  begins as unknown

Liveness and readiness wait until the startup probe, if there is one, has succeeded; after that the startup probe ends
for good.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lightkube.models import core_v1

from services.kubelet import pod_spec
from services.kubelet.handlers import Handlers, Outcome
from services.kubelet.pod_plan import ProbeView
from services.kubelet.runtime_state import ContainerRecord

KINDS = ("startup", "liveness", "readiness")
_TITLES = {"startup": "Startup", "liveness": "Liveness", "readiness": "Readiness"}
Run = Callable[[core_v1.Probe], Awaitable[Outcome]]


@dataclass(slots=True)
class Counter:
    """Turns single outcomes into a verdict by the probe's thresholds. Pure."""

    success_threshold: int = 1
    failure_threshold: int = 3
    _last: bool | None = None
    _run: int = 0

    def add(self, ok: bool) -> bool | None:
        """The verdict after one more outcome; None while the thresholds leave it as it was."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        return ok if self._run >= (self.success_threshold if ok else self.failure_threshold) else None


@dataclass(slots=True)
class _Probed:
    container_id: str
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    verdicts: dict[str, bool] = field(default_factory=dict)


class PodProbes:
    """The probes of one pod's running containers."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        handlers: Handlers,
        changed: Callable[[], None],
        event: Callable[[str, str, str], None],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._tasks = tasks
        self._handlers = handlers
        self._changed = changed
        self._event = event  # (container name, reason, message)
        self._jitter = jitter
        self._probed: dict[str, _Probed] = {}
        self._stopping = False

    def view(self) -> ProbeView:
        """What the probes say now."""
        by_kind: dict[str, dict[str, bool]] = {kind: {} for kind in KINDS}
        for probed in self._probed.values():
            for kind, verdict in probed.verdicts.items():
                by_kind[kind][probed.container_id] = verdict
        return ProbeView(by_kind["startup"], by_kind["liveness"], by_kind["readiness"])

    def reconcile(
        self, pod: core_v1.Pod, running: dict[str, ContainerRecord], ips: tuple[str, ...], *, adopted: bool = False
    ) -> None:
        """Probe exactly these running containers, by name. `adopted` containers were started by an earlier kubelet."""
        for name, probed in list(self._probed.items()):
            record = running.get(name)
            if record is None or record.id != probed.container_id:
                self._drop(name)
        if self._stopping:
            return
        for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]:
            record = running.get(container.name)
            if record is None:
                continue
            probed = self._probed.setdefault(container.name, _Probed(record.id))
            if adopted and container.name not in self._adopted_seen(pod):
                self._restore(pod, container, probed)
            startup_passed = container.startupProbe is None or probed.verdicts.get("startup") is True
            for kind in KINDS:
                probe = getattr(container, f"{kind}Probe")
                due = (kind == "startup" and not startup_passed) or (kind != "startup" and startup_passed)
                if probe is not None and due and kind not in probed.tasks:
                    loop = self._loop(pod, container, probe, kind, probed, ips, adopted)
                    probed.tasks[kind] = self._tasks.create_task(
                        loop, name=f"{kind} probe {pod_spec.key(pod)}/{container.name}"
                    )

    def _adopted_seen(self, pod: core_v1.Pod) -> set[str]:
        return {name for name, probed in self._probed.items() if probed.tasks}

    @staticmethod
    def _restore(pod: core_v1.Pod, container: core_v1.Container, probed: _Probed) -> None:
        """After a restart of the kubelet, what was ready stays ready until its probe says otherwise."""
        status = pod.status
        for entry in [
            *((status and status.containerStatuses) or []),
            *((status and status.initContainerStatuses) or []),
        ]:
            if entry.name == container.name and entry.containerID == f"containerd://{probed.container_id}":
                if container.startupProbe is not None and entry.started:
                    probed.verdicts["startup"] = True
                if container.readinessProbe is not None and entry.ready:
                    probed.verdicts["readiness"] = True

    def _drop(self, name: str) -> None:
        for task in self._probed.pop(name).tasks.values():
            task.cancel()

    def stop_restarting(self) -> None:
        """The pod is ending: no more liveness or startup verdicts. Readiness goes on, so that endpoints see it."""
        self._stopping = True
        for probed in self._probed.values():
            for kind in ("startup", "liveness"):
                if kind in probed.tasks:
                    probed.tasks[kind].cancel()
                probed.verdicts.pop("liveness", None)

    def stop(self) -> None:
        for name in list(self._probed):
            self._drop(name)

    async def _loop(
        self,
        pod: core_v1.Pod,
        container: core_v1.Container,
        probe: core_v1.Probe,
        kind: str,
        probed: _Probed,
        ips: tuple[str, ...],
        adopted: bool,
    ) -> None:
        period = probe.periodSeconds or 10
        counter = Counter(probe.successThreshold or 1, probe.failureThreshold or 3)
        # After a restart of the kubelet all probes would fire in the same moment.
        await asyncio.sleep(self._jitter() * period if adopted else float(probe.initialDelaySeconds or 0))
        while True:
            outcome = await self._handlers.probe(pod, container, probe, probed.container_id, ips)
            if not outcome.ok and not outcome.unknown:
                self._event(container.name, "Unhealthy", f"{_TITLES[kind]} probe failed: {outcome.message}")
            if outcome.warning:
                self._event(container.name, "ProbeWarning", f"{_TITLES[kind]} probe warning: {outcome.warning}")
            verdict = None if outcome.unknown else counter.add(outcome.ok)
            if verdict is not None and probed.verdicts.get(kind) is not verdict:
                probed.verdicts[kind] = verdict
                self._changed()
                if kind == "startup" or (kind == "liveness" and not verdict):
                    return  # A started container stays started, and one that is given up is going to be killed.
            await asyncio.sleep(period)
