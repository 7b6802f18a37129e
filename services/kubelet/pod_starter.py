"""Starting and stopping one pod's sandbox and containers: everything that a plan's action needs done, in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path

from cri_api.v1 import api_pb2 as cri
from lightkube.models import core_v1

from machinery.api import kinds
from machinery.component import logs
from services.kubelet import container_config, environment, etc_hosts, pod_spec
from services.kubelet.container_config import ContainerParts, InvalidConfig, MountSpec
from services.kubelet.devices.claims import extended_claim
from services.kubelet.devices.drivers import DeviceError
from services.kubelet.environment import MissingReference, Sources, expand
from services.kubelet.images import ImageProblem
from services.kubelet.node import Node
from services.kubelet.pod_plan import StartContainer, Waiting
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.runtime_state import ContainerRecord, PodRuntime, State
from services.kubelet.user_ids import NoIdsLeft
from services.kubelet.volumes.context import VolumeError, VolumePath
from services.kubelet.volumes.payload import config_map_data, secret_data

log = logs.get("kubelet")

GRACE_SECONDS_MIN = 2  # what a container gets after a preStop hook used up its period, as upstream


class StartFailed(Exception):
    """A container could not be started; `waiting` is what its status shows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.waiting = Waiting(reason, message)


class PodStarter:
    """Acts for one pod. Remembers what its volumes are between actions of one pass."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.paths: dict[str, VolumePath] | None = None

    # --- sandbox

    async def prepare(self, pod: core_v1.Pod) -> None:
        """Directories, cgroup and volumes. Raises VolumeError."""
        node = self._node
        if not node.real_files:
            self.paths = {v.name: VolumePath("/") for v in pod.spec.volumes or ()}
            return
        if self.paths is None:
            self._make_directories(pod)
            node.cgroups.set_up_pod(pod)
            paths = await node.volumes.set_up(pod, node.facts)
            await self._pull_image_volumes(pod, paths)
            self.paths = paths

    async def _pull_image_volumes(self, pod: core_v1.Pod, paths: dict[str, VolumePath]) -> None:
        """Image volumes: the image has to be here before a container can mount it."""
        for volume in pod.spec.volumes or ():
            if volume.image is None:
                continue
            wanted = core_v1.Container(
                name=volume.name, image=volume.image.reference, imagePullPolicy=volume.image.pullPolicy
            )
            try:
                found = await self._node.images.ensure(pod, wanted, lambda *event: self._node.event(pod, *event))
            except ImageProblem as error:
                raise VolumeError(f'volume "{volume.name}": {error.waiting.reason}: {error.waiting.message}') from error
            paths[volume.name] = VolumePath("", read_only=True, image=found.ref)

    def _make_directories(self, pod: core_v1.Pod) -> None:
        root = self._node.volumes.pod_dir(pod.metadata.uid or "")
        for path in (root, root / "volumes", root / "containers", root / "plugins"):
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
        log_dir = Path(container_config.pod_log_directory(self._node.settings.log_root, pod))
        log_dir.mkdir(mode=0o755, parents=True, exist_ok=True)

    def sandbox_config(self, pod: core_v1.Pod, attempt: int) -> cri.PodSandboxConfig:
        node = self._node
        return container_config.sandbox_config(
            pod, attempt, node.settings, node.cgroups.pod_path(pod), self._first_user_id(pod)
        )

    def _first_user_id(self, pod: core_v1.Pod) -> int | None:
        """Where the ids of a pod with `hostUsers: false` begin. Raises RuntimeFailure."""
        node = self._node
        if pod.spec.hostUsers is not False or node.user_ids is None:
            return None
        try:
            return node.user_ids.of(pod.metadata.uid or "")
        except (NoIdsLeft, OSError) as error:
            raise RuntimeFailure(str(error)) from error

    async def create_sandbox(self, pod: core_v1.Pod, attempt: int) -> None:
        """Run the sandbox while the volumes are being prepared. Raises RuntimeFailure, VolumeError."""
        if self._node.real_files:
            self._make_directories(pod)
            self._node.cgroups.set_up_pod(pod)
        handler = await self._handler(pod)
        if pod.spec.hostUsers is False and not (await self._node.runtime.features_of(handler)).user_namespaces:
            raise RuntimeFailure(f'RuntimeClassHandler "{handler}" does not support user namespaces')
        await self._prepare_devices(pod)
        sandbox = asyncio.ensure_future(self._node.runtime.run_sandbox(self.sandbox_config(pod, attempt), handler))
        try:
            await self.prepare(pod)
        except BaseException:
            # The sandbox is finished all the same: cut off in the middle it would cost a second one.
            with contextlib.suppress(RuntimeFailure):
                await sandbox
            raise
        await sandbox

    async def _prepare_devices(self, pod: core_v1.Pod) -> None:
        """What the pod claims. Raises RuntimeFailure."""
        if self._node.devices is None or not (pod.spec.resourceClaims or extended_claim(pod)):
            return
        try:
            await self._node.devices.prepare(pod)
        except DeviceError as error:
            message = f"Failed to prepare dynamic resources: prepare dynamic resources: {error}"
            self._node.event(pod, "Warning", "FailedPrepareDynamicResources", message)
            raise RuntimeFailure(message) from error

    async def _handler(self, pod: core_v1.Pod) -> str:
        """The runtime's handler that the pod's RuntimeClass names."""
        name = pod.spec.runtimeClassName
        if not name:
            return ""
        found = await self._node.objects.get(kinds.RUNTIME_CLASS, "", name)
        if found is None:
            raise RuntimeFailure(f'failed to get sandbox runtime: RuntimeClass.node.k8s.io "{name}" not found')
        return found.handler

    # --- containers

    async def start(self, pod: core_v1.Pod, action: StartContainer, runtime: PodRuntime) -> str:
        """Pull, create and start one container and run its postStart hook; its id. Raises StartFailed, ImageProblem."""
        node = self._node
        container = pod_spec.find_container(pod, action.name)
        sandbox = runtime.ready_sandbox
        assert container is not None
        assert sandbox is not None
        for stale in action.remove:
            await node.runtime.remove_container(stale)
        sandbox_config = self.sandbox_config(pod, sandbox.attempt)

        def event(kind: str, reason: str, message: str) -> None:
            node.event(pod, kind, reason, message, container.name)

        try:
            image = await node.images.ensure(pod, container, event, sandbox_config)
        except ImageProblem as error:
            event("Warning", "Failed", f"Error: {error.waiting.reason}")
            raise StartFailed(error.waiting.reason, error.waiting.message) from error
        config = await self._config(pod, container, action, runtime, image, event)
        try:
            container_id = await node.runtime.create_container(sandbox.id, config, sandbox_config)
        except RuntimeFailure as error:
            event("Warning", "Failed", f"Error: {error.message}")
            raise StartFailed("CreateContainerError", error.message) from error
        event("Normal", "Created", "Container created")
        try:
            await node.runtime.start_container(container_id)
        except RuntimeFailure as error:
            event("Warning", "Failed", f"Error: {error.message}")
            raise StartFailed("RunContainerError", error.message) from error
        event("Normal", "Started", "Container started")
        await self._post_start(pod, container, container_id, runtime)
        return container_id

    async def _config(self, pod, container, action, runtime: PodRuntime, image, event) -> cri.ContainerConfig:  # type: ignore[no-untyped-def]
        node = self._node
        try:
            env = await self._environment(pod, container, runtime) if node.real_files else {}
            mounts, devices = self._mounts(pod, container, runtime, env)
            parts = ContainerParts(
                image_ref=image.ref,
                env=env,
                mounts=mounts,
                devices=devices,
                cdi_devices=node.devices.cdi_devices(pod, container) if node.devices is not None else (),
                image_uid=image.uid,
                image_user=image.user,
                target_container_id=self._target(container, runtime),
                first_user_id=self._first_user_id(pod),
                command=[expand(word, env.get) for word in container.command or ()],
                args=[expand(word, env.get) for word in container.args or ()],
            )
            return container_config.container_config(pod, container, action.restart_count, node.settings, parts)
        except (MissingReference, InvalidConfig, VolumeError, DeviceError) as error:
            event("Warning", "Failed", f"Error: {error}")
            raise StartFailed("CreateContainerConfigError", str(error)) from error

    @staticmethod
    def _target(container: pod_spec.AnyContainer, runtime: PodRuntime) -> str:
        name = getattr(container, "targetContainerName", None)
        if not name:
            return ""
        target = runtime.latest(name)
        if target is None or not target.running:
            raise InvalidConfig(f"target container {name} is not running")
        return target.id

    async def _environment(
        self, pod: core_v1.Pod, container: pod_spec.AnyContainer, runtime: PodRuntime
    ) -> dict[str, str]:
        node = self._node
        map_names, secret_names = environment.references(container)
        namespace, uid = pod.metadata.namespace or "", pod.metadata.uid or ""
        maps = {name: await node.objects.config_map(namespace, name, uid) for name in sorted(map_names)}
        found = {name: await node.objects.secret(namespace, name, uid) for name in sorted(secret_names)}
        if node.wait_services is not None:
            await node.wait_services()  # type: ignore[misc]
        sources = Sources(
            config_maps={
                n: None
                if m is None
                else {k: v.decode("utf-8", "surrogateescape") for k, v in config_map_data(m).items()}
                for n, m in maps.items()
            },
            secrets={n: None if s is None else secret_data(s) for n, s in found.items()},
            services=node.services(),
            read_file_key=self._read_file_key,
        )
        ips = node.ips if pod.spec.hostNetwork else runtime.ips
        return environment.build(pod, container, sources, node.facts(ips))

    def _read_file_key(self, volume: str, path: str, key: str) -> str | None:
        """A variable out of a file of `KEY=value` lines in a volume."""
        source = (self.paths or {}).get(volume)
        if source is None or ".." in Path(path).parts:
            return None
        file = Path(source.path) / path
        if not file.is_file() or file.is_symlink():
            return None
        for line in file.read_text(errors="replace").splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip() == key:
                return value.strip().strip("'\"")
        return None

    def _mounts(
        self, pod: core_v1.Pod, container: pod_spec.AnyContainer, runtime: PodRuntime, env: dict[str, str]
    ) -> tuple[list[MountSpec], list[tuple[str, str, str]]]:
        node = self._node
        if not node.real_files:
            return [], []
        log_dir = container_config.pod_log_directory(node.settings.log_root, pod)
        Path(log_dir, container.name).mkdir(mode=0o755, parents=True, exist_ok=True)
        paths = self.paths or {}
        mounts = node.volumes.mounts(pod, container, paths, env)
        taken = {mount.container_path.rstrip("/") for mount in mounts}
        pod_dir = node.volumes.pod_dir(pod.metadata.uid or "")
        if "/etc/hosts" not in taken:
            ips = node.ips if pod.spec.hostNetwork else runtime.ips
            hosts = etc_hosts.write(pod_dir, pod, ips, node.settings.cluster_domain)
            mounts.append(MountSpec("/etc/hosts", hosts))
        message_path = container.terminationMessagePath or "/dev/termination-log"
        if message_path not in taken:
            mounts.append(MountSpec(message_path, _termination_file(pod_dir, container.name)))
        devices = []
        for device in getattr(container, "volumeDevices", None) or ():
            volume = paths.get(device.name)
            if volume is None or not volume.is_device:
                raise VolumeError(f'volume "{device.name}" of container {container.name} is not a block volume')
            devices.append((device.devicePath, volume.path, "r" if volume.read_only else "mrw"))
        return mounts, devices

    async def _post_start(
        self, pod: core_v1.Pod, container: pod_spec.AnyContainer, container_id: str, runtime: PodRuntime
    ) -> None:
        hook = container.lifecycle.postStart if container.lifecycle else None
        if hook is None:
            return
        node = self._node
        outcome = await node.handlers.hook(container, hook, container_id, runtime.ips or node.ips, 3600)
        if outcome.ok:
            return
        # As upstream: what the hook said is for the log, as it may hold secrets.
        log.warning("postStart hook failed", pod=pod_spec.key(pod), container=container.name, error=outcome.message)
        message = "PostStartHook failed"
        node.event(pod, "Warning", "FailedPostStartHook", message, container.name)
        await self.kill(
            pod,
            ContainerRecord(container_id, container.name, "", state=State.RUNNING),
            pod_spec.grace_period_seconds(pod),
            "FailedPostStartHook",
            runtime.ips,
        )
        raise StartFailed("PostStartHookError", outcome.message or message)

    async def kill(
        self, pod: core_v1.Pod, record: ContainerRecord, grace_seconds: int, message: str, ips: tuple[str, ...]
    ) -> None:
        """preStop, SIGTERM, the rest of the grace period, SIGKILL. Returns when the container is dead."""
        node = self._node
        loop = asyncio.get_running_loop()
        began = loop.time()
        container = pod_spec.find_container(pod, record.name)
        node.event(pod, "Normal", "Killing", message, record.name)
        hook = container.lifecycle.preStop if container is not None and container.lifecycle else None
        if hook is not None and container is not None and grace_seconds > 0:
            outcome = await node.handlers.hook(container, hook, record.id, ips or node.ips, grace_seconds)
            if not outcome.ok:
                log.warning("preStop hook failed", pod=pod_spec.key(pod), container=record.name, error=outcome.message)
                node.event(pod, "Warning", "FailedPreStopHook", "PreStopHook failed", record.name)
            used = int(loop.time() - began)
            grace_seconds = max(GRACE_SECONDS_MIN, grace_seconds - used)
        await node.runtime.stop_container(record.id, grace_seconds)


def _termination_file(pod_dir: Path, container: str) -> str:
    """A fresh file for the container's last words, writable by whoever it runs as."""
    directory = pod_dir / "containers" / container
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = directory / secrets.token_hex(4)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    path.chmod(0o666)
    return str(path)
