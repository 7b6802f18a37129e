"""Resizing a running pod in place (KEP-1287, KEP-5419): what `resize` decides, done to cgroups and containers."""

from __future__ import annotations

from typing import Any

from lightkube.models import core_v1

from services.kubelet import container_config, pod_spec, qos, resize
from services.kubelet.node import Node
from services.kubelet.pod_starter import PodStarter
from services.kubelet.runtime_state import ContainerRecord, PodRuntime

Json = dict[str, Any]
_Due = list[tuple[core_v1.Container, ContainerRecord, set[str]]]


class PodResizer:
    """Acts for one pod, and knows what its containers and its cgroup were given.

    `applied` has each container's resources by name, `applied_pod` those of the pod (None until a container runs),
    `pending` why the last look at it changed nothing.
    """

    def __init__(self, node: Node, starter: PodStarter) -> None:
        self._node = node
        self._starter = starter
        self.applied: dict[str, Json] = {}
        self.applied_pod: Json | None = None
        self.pending: resize.Pending | None = None

    @property
    def waits(self) -> bool:
        """Whether what is pending may be possible later without anything of the pod changing."""
        return self.pending is not None and self.pending.reason != "Infeasible"

    def started(self, container: pod_spec.AnyContainer) -> None:
        """A container was started with what its spec says."""
        self.applied[container.name] = resize.resources_of(container)

    async def resize(self, pod: core_v1.Pod, runtime: PodRuntime, status: Json) -> bool:
        """Give running containers what the spec now asks for, the pod's own cgroup growing before them and shrinking
        after. Whether a container was ended for it. Raises RuntimeFailure."""
        shared = self._pod_level_changes(pod, status)
        due = self._due(pod, runtime, status, shared)
        if not due and not shared:
            self.pending = None
            return False
        before = self.pending
        self.pending = resize.obstacle(pod, self._node.active_pods(), self._node.allocatable)
        if self.pending is None and "memory" in shared.union(*(names for _, _, names in due)):
            self.pending = resize.memory_obstacle(pod, await self._memory(pod, runtime, due))
            if self.pending is not None and before != self.pending:
                text = resize.error_message(pod, self.pending.message)
                self._node.event(pod, "Warning", "ResizeError", text)
        return False if self.pending is not None else await self._apply(pod, runtime, due)

    async def _apply(self, pod: core_v1.Pod, runtime: PodRuntime, due: _Due) -> bool:
        node, ended = self._node, False
        node.event(pod, "Normal", "ResizeStarted", resize.started_message(pod))
        node.cgroups.set_up_pod(pod, quiet=True)
        for container, record, names in due:
            if resize.needs_restart(container, names):
                message = f"Container {container.name} resize requires restart"
                grace = pod_spec.grace_period_seconds(pod)
                await self._starter.kill(pod, record, grace, message, runtime.ips)
                ended = True
            else:
                resources = container_config.linux_resources(pod, container, node.settings)
                await node.runtime.update_resources(record.id, resources)
                self.applied[container.name] = resize.resources_of(container)
        node.cgroups.set_up_pod(pod)
        node.cgroups.set_qos_shares(node.active_pods())
        self.applied_pod = qos.pod_resources_shown(pod)
        node.event(pod, "Normal", "ResizeCompleted", resize.completed_message(pod))
        return ended

    def _due(self, pod: core_v1.Pod, runtime: PodRuntime, status: Json, shared: set[str]) -> _Due:
        due: _Due = []
        for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]:
            record = runtime.latest(container.name)
            if record is None or not record.running:
                continue
            applied = self.applied.setdefault(container.name, _known(container, record.id, status))
            names = resize.changed(container, applied)
            if names or resize.inherits(container, shared):
                due.append((container, record, names))
        return due

    async def _memory(self, pod: core_v1.Pod, runtime: PodRuntime, due: _Due) -> dict[str, int]:
        """What the containers that go on running through the resize can't drop, in bytes by name."""
        restarting = {record.id for c, record, names in due if resize.needs_restart(c, names)}
        staying = {record.id: record.name for record in runtime.running if record.id not in restarting}
        stats = await self._node.runtime.container_stats() if staying else []
        return {staying[s.attributes.id]: s.memory.working_set_bytes.value for s in stats if s.attributes.id in staying}

    def _pod_level_changes(self, pod: core_v1.Pod, status: Json) -> set[str]:
        """Which of the pod's own resources are not yet what its spec says."""
        if self.applied_pod is None:
            # An earlier kubelet's word for it, or, for a pod that is just starting, what its cgroup was made with.
            self.applied_pod = status.get("resources") or qos.pod_resources_shown(pod)
        return resize.pod_level_changed(pod, self.applied_pod)


def _known(container: core_v1.Container, container_id: str, status: Json) -> Json:
    """What an adopted container was given, as the status that an earlier kubelet wrote says."""
    for group in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(group) or ():
            if entry["name"] == container.name and entry.get("containerID") == f"containerd://{container_id}":
                return entry.get("resources") or resize.resources_of(container)
    return resize.resources_of(container)
