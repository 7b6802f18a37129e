"""Graceful node shutdown: the node says that it goes, takes no more pods, and ends those that it has, by priority.

It begins when systemd-logind announces a shutdown, or when the kubelet gets SIGPWR (what an init without logind, or a
person, sends). The kubelet's own SIGTERM is no shutdown of the node: pods outlive the kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from machinery.component import logs, metrics
from services.kubelet import pod_spec, shutdown_plan
from services.kubelet.admission import Refusal
from services.kubelet.config import KubeletConfig
from services.kubelet.dbus import DBusError
from services.kubelet.logind import Logind, allow_delay
from services.kubelet.node import Node
from services.kubelet.pods import Pods

log = logs.get("kubelet")
_START = metrics.gauge(
    "kubelet_graceful_shutdown_start_time_seconds", "When the last graceful shutdown began, unix seconds"
)
_END = metrics.gauge(
    "kubelet_graceful_shutdown_end_time_seconds", "When the last graceful shutdown ended, unix seconds"
)


class NodeShutdown:
    """Ends the node's pods for a shutdown, once. `node_changed` is told when the node's status has to be told anew."""

    def __init__(self, config: KubeletConfig, node: Node, pods: Pods, node_changed: Callable[[], None]) -> None:
        self._seconds = shutdown_plan.periods(
            config.shutdown_grace_seconds, config.shutdown_grace_critical_seconds, config.shutdown_grace_by_priority
        )
        self._node = node
        self._pods = pods
        self._node_changed = node_changed
        self._task: asyncio.Task[None] | None = None
        self.begun = False

    @property
    def enabled(self) -> bool:
        return bool(self._seconds)

    def problem(self) -> str:
        """What the node's Ready condition says of it; empty while there is no shutdown."""
        return shutdown_plan.NODE_MESSAGE if self.begun else ""

    async def follow_logind(self) -> None:
        """For ever; nothing where graceful shutdown is not configured."""
        if not self.enabled:
            return
        try:
            await allow_delay(sum(self._seconds.values()))
        except (DBusError, OSError, TimeoutError) as error:
            log.info("logind could not be asked for more time", error=str(error))
        await Logind(self.announced).run()

    async def announced(self, begins: bool) -> None:
        """The machine goes down (returns when its pods have ended), or does not after all."""
        if begins:
            await self.begin()
        else:
            self.call_off()

    def trigger(self) -> None:
        """Begin, from a signal handler."""
        if self.enabled and self._task is None:
            self._task = self._node.tasks.create_task(self.begin(), name="node shutdown")

    async def begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        self._pods.refusal = Refusal(shutdown_plan.REFUSAL_REASON, shutdown_plan.REFUSAL_MESSAGE)
        self._node.node_event("Normal", "NodeShutdown", "Shutdown manager detected shutdown event")
        self._node_changed()
        _START.set(time.time())
        for group in shutdown_plan.groups(self._pods.active(), self._seconds):
            log.info("ending pods", priority=group.priority, pods=len(group.pods), seconds=group.seconds)
            await self._end(group)
        _END.set(time.time())
        log.info("every pod has ended or had its time")

    def call_off(self) -> None:
        """Take pods again. What has ended stays ended."""
        if not self.begun:
            return
        self.begun = False
        self._task = None
        self._pods.refusal = None
        self._node.node_event("Normal", "NodeShutdown", "Shutdown manager detected shutdown cancellation")
        self._node_changed()

    async def _end(self, group: shutdown_plan.Group) -> None:
        ended = []
        for pod in group.pods:
            worker = self._pods.workers.get(pod.metadata.uid or "")
            if worker is not None:
                worker.end(shutdown_plan.verdict(), shutdown_plan.grace_seconds(pod, group))
                ended.append(worker.settled.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(group.seconds):
                await asyncio.gather(*ended)
                return
        left = [
            pod_spec.key(pod)
            for pod in group.pods
            if (w := self._pods.workers.get(pod.metadata.uid or "")) and not w.settled.is_set()
        ]
        log.warning("pods have not ended in time", pods=left, priority=group.priority)
