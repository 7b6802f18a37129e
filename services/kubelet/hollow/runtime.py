"""A simulated CRI runtime: the same calls and the same states as the real client, no containers.

Time passes as it does for real ones: a start may take a while, a container may end by itself. Each change is told at
once, as CRI's event stream would.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cri_api.v1 import api_pb2 as cri

from machinery.api.quantity import QuantityError, parse_quantity
from services.kubelet.container_config import (
    ANNOTATION_HASH,
    ANNOTATION_KIND,
    ANNOTATION_RESTARTS,
    LABEL_CONTAINER,
    LABEL_UID,
)
from services.kubelet.hollow.behaviour import Behaviour, behaviour, setting
from services.kubelet.runtime import RuntimeFailure, RuntimeNotFound, Unsupported
from services.kubelet.runtime_state import (
    ContainerRecord,
    PodRuntime,
    SandboxRecord,
    State,
    order_containers,
    order_sandboxes,
)

_KILLED, _TERMINATED = 137, 143
_IMAGE_BYTES = 10 << 20
_numbers = itertools.count(1)


def _new_id() -> str:
    return f"{os.getpid():08x}{next(_numbers):056x}"


@dataclass(slots=True)
class _Container:
    record: ContainerRecord
    behaviour: Behaviour
    uid: str
    annotations: dict[str, str]
    labels: dict[str, str]
    end: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Pod:
    namespace: str
    name: str
    sandboxes: dict[str, SandboxRecord] = field(default_factory=dict)
    containers: dict[str, _Container] = field(default_factory=dict)


class HollowRuntime:
    """One node's simulated runtime. `changed(uid, state)` is called after every change."""

    def __init__(
        self, changed: Callable[[str, PodRuntime | None], None] = lambda _uid, _state: None, cidr: str = "10.200.0.0/24"
    ) -> None:
        self.changed = changed
        self._pods: dict[str, _Pod] = {}
        self._sandbox_owner: dict[str, str] = {}
        self._container_owner: dict[str, str] = {}
        self._network = ipaddress.ip_network(cidr)
        self._free: list[str] = []
        self._next_ip = 2
        self._images: dict[str, cri.Image] = {}

    async def close(self) -> None:
        for pod in self._pods.values():
            for container in pod.containers.values():
                if container.end is not None:
                    container.end.cancel()

    # --- the runtime itself

    async def version(self, timeout: float = 5.0) -> cri.VersionResponse:
        return cri.VersionResponse(
            version="0.1.0", runtime_name="hollow", runtime_version="1.0", runtime_api_version="v1"
        )

    async def status(self, timeout: float = 5.0) -> cri.StatusResponse:
        conditions = [cri.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")]
        handlers = [cri.RuntimeHandler(name="", features=await self.features_of(""))]
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=conditions), runtime_handlers=handlers)

    async def features_of(self, _handler: str) -> cri.RuntimeHandlerFeatures:
        return cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)

    async def set_pod_cidr(self, cidr: str) -> None:
        """Addresses from now on come out of this network."""
        network = ipaddress.ip_network(cidr.split(",")[0])
        if network != self._network:
            self._network, self._next_ip, self._free = network, 2, []

    def events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        raise Unsupported("a simulated runtime tells its changes by a call")

    # --- what there is

    async def list_summary(self) -> dict[str, PodRuntime]:
        return {uid: self._state(uid) for uid in self._pods}

    async def pod(self, uid: str) -> PodRuntime:
        return self._state(uid)

    def _state(self, uid: str) -> PodRuntime:
        pod = self._pods.get(uid)
        if pod is None:
            return PodRuntime(uid, at=time.time_ns())
        return PodRuntime(
            uid,
            pod.namespace,
            pod.name,
            order_sandboxes(list(pod.sandboxes.values())),
            order_containers([c.record for c in pod.containers.values()]),
            at=time.time_ns(),
        )

    def _tell(self, uid: str) -> None:
        self.changed(uid, self._state(uid))

    async def sandbox_pid_or_netns(self, sandbox_id: str) -> tuple[int, str]:
        raise RuntimeFailure("a simulated pod has no network")

    # --- sandboxes

    async def run_sandbox(self, config: cri.PodSandboxConfig, handler: str = "") -> str:
        meta = config.metadata
        pod = self._pods.setdefault(meta.uid, _Pod(meta.namespace, meta.name))
        sandbox_id = _new_id()
        host = config.linux.security_context.namespace_options.network == cri.NODE
        ips = () if host else (self._take_ip(),)
        pod.sandboxes[sandbox_id] = SandboxRecord(sandbox_id, meta.attempt, True, time.time_ns(), ips, host)
        self._sandbox_owner[sandbox_id] = meta.uid
        return sandbox_id

    def _take_ip(self) -> str:
        if self._free:
            return self._free.pop()
        if self._next_ip >= self._network.num_addresses - 1:
            raise RuntimeFailure(f"no address left in {self._network}")
        address = str(self._network[self._next_ip])
        self._next_ip += 1
        return address

    async def stop_sandbox(self, sandbox_id: str) -> None:
        uid = self._sandbox_owner.get(sandbox_id)
        if uid is None:
            return
        pod = self._pods[uid]
        sandbox = pod.sandboxes[sandbox_id]
        for container in pod.containers.values():
            if container.record.sandbox_id == sandbox_id and container.record.running:
                self._end(container, _KILLED)
        if sandbox.ready:
            self._free.extend(sandbox.ips)
            pod.sandboxes[sandbox_id] = replace(sandbox, ready=False, ips=())
            self._tell(uid)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        uid = self._sandbox_owner.get(sandbox_id)
        if uid is None:
            return
        await self.stop_sandbox(sandbox_id)
        pod = self._pods[uid]
        for container in [c for c in pod.containers.values() if c.record.sandbox_id == sandbox_id]:
            await self.remove_container(container.record.id)
        del pod.sandboxes[sandbox_id], self._sandbox_owner[sandbox_id]
        if not pod.sandboxes and not pod.containers:
            del self._pods[uid]
        self._tell(uid)

    # --- containers

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        uid = self._sandbox_owner.get(sandbox_id)
        if uid is None or not self._pods[uid].sandboxes[sandbox_id].ready:
            raise RuntimeNotFound(f"sandbox {sandbox_id} is not running")
        container_id = _new_id()
        name = config.labels.get(LABEL_CONTAINER, config.metadata.name)
        annotations = dict(sandbox_config.annotations)
        record = ContainerRecord(
            id=container_id,
            name=name,
            sandbox_id=sandbox_id,
            state=State.CREATED,
            created_at=time.time_ns(),
            image=config.image.user_specified_image or config.image.image,
            image_ref=f"sha256:{'0' * 64}",
            restart_count=int(config.annotations.get(ANNOTATION_RESTARTS, "0")),
            spec_hash=config.annotations.get(ANNOTATION_HASH, ""),
        )
        kind = config.annotations.get(ANNOTATION_KIND, "regular")
        what = behaviour(annotations, name, kind, [*config.command, *config.args])
        self._pods[uid].containers[container_id] = _Container(record, what, uid, annotations, dict(config.labels))
        self._container_owner[container_id] = uid
        return container_id

    def _find(self, container_id: str) -> _Container:
        uid = self._container_owner.get(container_id)
        if uid is None:
            raise RuntimeNotFound(f"container {container_id} not found")
        return self._pods[uid].containers[container_id]

    async def start_container(self, container_id: str) -> None:
        container = self._find(container_id)
        if container.record.state is not State.CREATED:
            raise RuntimeFailure(f"container {container_id} is {container.record.state.value}")
        if container.behaviour.start_delay > 0:
            await asyncio.sleep(container.behaviour.start_delay)
        container.record = replace(container.record, state=State.RUNNING, started_at=time.time_ns())
        if container.behaviour.run_seconds is not None:
            loop = asyncio.get_running_loop()
            what = container.behaviour
            container.end = loop.call_later(what.run_seconds, self._end_and_tell, container, what.exit_code)
        self._tell(container.uid)

    def _end(self, container: _Container, code: int, reason: str = "") -> None:
        if container.end is not None:
            container.end.cancel()
            container.end = None
        container.record = replace(
            container.record,
            state=State.EXITED,
            finished_at=time.time_ns(),
            exit_code=code,
            reason=reason or ("Completed" if code == 0 else "Error"),
        )

    def _end_and_tell(self, container: _Container, code: int) -> None:
        if container.record.running:
            self._end(container, code)
            self._tell(container.uid)

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        try:
            container = self._find(container_id)
        except RuntimeNotFound:
            return
        if not container.record.running:
            return
        needed = container.behaviour.stop_seconds
        if needed > 0:
            await asyncio.sleep(min(needed, grace_seconds))
        if container.record.running:
            self._end(container, _KILLED if needed > grace_seconds else _TERMINATED if needed > 0 else 0)
            self._tell(container.uid)

    async def remove_container(self, container_id: str) -> None:
        uid = self._container_owner.pop(container_id, None)
        if uid is None:
            return
        container = self._pods[uid].containers.pop(container_id)
        if container.end is not None:
            container.end.cancel()
        self._tell(uid)

    async def update_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        self._find(container_id)

    async def reopen_log(self, container_id: str) -> None:
        self._find(container_id)

    async def exec_sync(
        self, container_id: str, command: list[str], timeout_seconds: float
    ) -> tuple[int, bytes, bytes]:
        container = self._find(container_id)
        if not container.record.running:
            raise RuntimeFailure(f"container {container_id} is not running")
        what = behaviour({}, container.record.name, "init", command)
        if what.run_seconds and what.run_seconds > timeout_seconds:
            raise RuntimeFailure(f"command timed out after {timeout_seconds:g}s: context deadline exceeded")
        out = " ".join(command[1:]).encode() + b"\n" if command and command[0] == "echo" else b""
        return what.exit_code, out, b""

    async def exec_url(self, container_id: str, command: list[str], **_: Any) -> str:
        raise RuntimeFailure("a simulated container runs no commands")

    async def attach_url(self, container_id: str, **_: Any) -> str:
        raise RuntimeFailure("a simulated container has no streams")

    async def port_forward_url(self, sandbox_id: str, ports: list[int]) -> str:
        raise RuntimeFailure("a simulated pod has no network")

    async def container_stats(self) -> list[cri.ContainerStats]:
        """Usage by annotation, cpu time growing with the container's age."""
        now = time.time_ns()
        out = []
        for pod in self._pods.values():
            for container in pod.containers.values():
                if container.record.running:
                    out.append(_stats(container, now))
        return out

    def age_seconds(self, container_id: str) -> tuple[float, dict[str, str]]:
        """(seconds since its start, its pod's annotations), for the simulated probes."""
        container = self._find(container_id)
        return (time.time_ns() - container.record.started_at) / 1e9, container.annotations

    # --- images: every image is here

    async def image(self, reference: str) -> cri.Image | None:
        image = self._images.get(reference)
        if image is None:
            image = self._images[reference] = cri.Image(id=reference, repo_tags=[reference], size=_IMAGE_BYTES)
        return image

    async def pull_image(self, reference: str, auth: Any, sandbox_config: Any) -> str:
        await self.image(reference)
        return reference

    async def images(self) -> list[cri.Image]:
        return list(self._images.values())

    async def remove_image(self, image_id: str) -> None:
        self._images.pop(image_id, None)

    async def image_fs(self) -> cri.ImageFsInfoResponse:
        return cri.ImageFsInfoResponse()


def _stats(container: _Container, now: int) -> cri.ContainerStats:
    name = container.record.name
    milli = _amount(setting(container.annotations, "cpu", name), 1000, 1)
    memory = _amount(setting(container.annotations, "memory", name), 1, 8 << 20)
    age = now - container.record.started_at
    stats = cri.ContainerStats(attributes=cri.ContainerAttributes(id=container.record.id, labels=container.labels))
    stats.cpu.timestamp = now
    stats.cpu.usage_core_nano_seconds.value = age * milli // 1000
    stats.cpu.usage_nano_cores.value = milli * 1_000_000
    stats.memory.timestamp = now
    stats.memory.working_set_bytes.value = stats.memory.usage_bytes.value = stats.memory.rss_bytes.value = memory
    assert container.labels.get(LABEL_UID)
    return stats


def _amount(text: str | None, factor: int, default: int) -> int:
    try:
        return default if text is None else parse_quantity(text).milli_value * factor // 1000
    except QuantityError:
        return default
