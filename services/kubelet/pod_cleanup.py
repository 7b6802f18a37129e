"""What a pod leaves behind, and getting rid of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from lightkube.models import core_v1

from services.kubelet import pod_spec
from services.kubelet.container_config import pod_log_directory
from services.kubelet.devices.drivers import DeviceError
from services.kubelet.node import Node
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.runtime_state import PodRuntime, State


class PodCleanup:
    """Removes containers, sandboxes, volumes, cgroups and logs of pods. Every step is safe to repeat."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def drop_old_runs(self, pod: core_v1.Pod, runtime: PodRuntime) -> None:
        """Keep one ended run a container besides the present one (its log is `logs --previous`), and no old sandbox."""
        keep_ids: set[str] = set()
        for container in pod_spec.all_containers(pod):
            runs = runtime.runs_of(container.name)
            keep_ids.update(run.id for run in runs[:2])
        for record in runtime.containers:
            if record.id in keep_ids or record.state is not State.EXITED:
                continue
            await self._node.runtime.remove_container(record.id)
            self._remove_logs_of(record.log_path)
        used = {record.sandbox_id for record in runtime.containers if record.id in keep_ids}
        for sandbox in runtime.sandboxes[1:]:
            if not sandbox.ready and sandbox.id not in used:
                await self._node.runtime.remove_sandbox(sandbox.id)

    @staticmethod
    def _remove_logs_of(log_path: str) -> None:
        if log_path:
            path = Path(log_path)
            for file in path.parent.glob(path.name + "*"):
                file.unlink(missing_ok=True)

    async def release_resources(self, pod: core_v1.Pod) -> None:
        """Volumes, cgroup and devices. Raises OSError with what is in the way, RuntimeFailure for devices."""
        node = self._node
        if not node.real_files:
            return
        uid = pod.metadata.uid or ""
        await _in_thread(lambda: node.volumes.tear_down(uid))
        node.cgroups.remove_pod(pod)
        if node.user_ids is not None:
            node.user_ids.release(uid)
        if node.devices is not None:
            try:
                await node.devices.unprepare(uid)
            except DeviceError as error:
                raise RuntimeFailure(f"unprepare dynamic resources: {error}") from error

    async def remove_all(self, pod: core_v1.Pod, runtime: PodRuntime) -> None:
        """Containers, sandboxes and logs of a pod that is gone."""
        node = self._node
        for record in runtime.containers:
            await node.runtime.remove_container(record.id)
        for sandbox in runtime.sandboxes:
            await node.runtime.stop_sandbox(sandbox.id)
            await node.runtime.remove_sandbox(sandbox.id)
        if node.real_files:
            node.cgroups.remove_pod(pod)
            shutil.rmtree(pod_log_directory(node.settings.log_root, pod), ignore_errors=True)


async def _in_thread(work: Callable[[], None]) -> None:
    """Unmounting and removing can wait for a disk or a server; the other pods must not."""
    await asyncio.get_running_loop().run_in_executor(None, work)
