"""The CRI client: everything that leaves the kubelet for the container runtime goes through here.

Errors of the runtime come out as `RuntimeFailure`; a thing that is already gone is `RuntimeNotFound`. Every call has
a deadline, by upstream's figures: two minutes for most, none shorter than what the call itself is told to wait.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc as cri_grpc

from services.kubelet import runtime_metrics, termination_message
from services.kubelet.container_config import (
    ANNOTATION_HASH,
    ANNOTATION_RESTARTS,
    LABEL_CONTAINER,
    LABEL_NAME,
    LABEL_NAMESPACE,
    LABEL_UID,
)
from services.kubelet.runtime_state import (
    ContainerRecord,
    PodRuntime,
    SandboxRecord,
    State,
    order_containers,
    order_sandboxes,
)

_DEADLINE = 120.0
_MESSAGE_BYTES_MAX = 16 << 20  # containerd's own limit; statuses of many containers in one answer are large
_STATES = {
    cri.CONTAINER_CREATED: State.CREATED,
    cri.CONTAINER_RUNNING: State.RUNNING,
    cri.CONTAINER_EXITED: State.EXITED,
    cri.CONTAINER_UNKNOWN: State.UNKNOWN,
}


class RuntimeFailure(Exception):
    """The runtime said no, or did not answer."""

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class RuntimeNotFound(RuntimeFailure):
    """The runtime does not have it (any more)."""


class Unsupported(RuntimeFailure):
    """The runtime does not implement this call."""


def _translate(error: grpc.aio.AioRpcError) -> RuntimeFailure:
    kinds = {grpc.StatusCode.NOT_FOUND: RuntimeNotFound, grpc.StatusCode.UNIMPLEMENTED: Unsupported}
    text = f"rpc error: code = {_go_code(error.code())} desc = {error.details()}"
    return kinds.get(error.code(), RuntimeFailure)(text, error.code())


def _go_code(code: grpc.StatusCode) -> str:
    return "".join(word.capitalize() for word in code.name.split("_"))


class Runtime:
    """A connection to one CRI runtime. Safe to use from many tasks."""

    def __init__(self, endpoint: str) -> None:
        target = endpoint if "://" in endpoint else f"unix://{endpoint}"
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.default_authority", "localhost"),
        ]
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._runtime = cri_grpc.RuntimeServiceStub(self._channel)
        self._images = cri_grpc.ImageServiceStub(self._channel)
        # What can't change any more: how an ended container ended, by its id.
        self._ended: dict[str, ContainerRecord] = {}
        self._features: dict[str, cri.RuntimeHandlerFeatures] = {}

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, method: str, request: Any, *, timeout: float = _DEADLINE, images: bool = False) -> Any:
        stub = self._images if images else self._runtime
        began, failed = time.monotonic(), True
        try:
            answer = await getattr(stub, method)(request, timeout=timeout)
            failed = False
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        finally:
            runtime_metrics.observe(method, time.monotonic() - began, failed=failed)
        return answer

    # --- the runtime itself

    async def version(self, timeout: float = 5.0) -> cri.VersionResponse:
        return await self._call("Version", cri.VersionRequest(version="0.1.0"), timeout=timeout)

    async def status(self, timeout: float = 5.0) -> cri.StatusResponse:
        answer: cri.StatusResponse = await self._call("Status", cri.StatusRequest(), timeout=timeout)
        self._features = {handler.name: handler.features for handler in answer.runtime_handlers}
        return answer

    @property
    def recursive_read_only(self) -> bool:
        """Whether the default handler has recursively read-only mounts, as it said last."""
        return "" in self._features and self._features[""].recursive_read_only_mounts

    async def features_of(self, handler: str) -> cri.RuntimeHandlerFeatures:
        """What the runtime can do with this handler; nothing special where it does not say."""
        if handler not in self._features:
            await self.status()
        return self._features.get(handler, cri.RuntimeHandlerFeatures())

    async def set_pod_cidr(self, cidr: str) -> None:
        config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=cidr))
        await self._call("UpdateRuntimeConfig", cri.UpdateRuntimeConfigRequest(runtime_config=config))

    async def events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Container events for as long as the stream holds; raises when it breaks or is not offered."""
        try:
            async for event in self._runtime.GetContainerEvents(cri.GetEventsRequest()):
                yield event
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error

    # --- what there is

    async def list_summary(self) -> dict[str, PodRuntime]:
        """Every pod by uid, without what only a status call tells (addresses, exit codes): cheap, for comparing."""
        sandboxes = (await self._call("ListPodSandbox", cri.ListPodSandboxRequest())).items
        containers = (await self._call("ListContainers", cri.ListContainersRequest())).containers
        by_uid: dict[str, tuple[list[SandboxRecord], list[ContainerRecord], tuple[str, str]]] = {}
        for item in sandboxes:
            meta = item.metadata
            entry = by_uid.setdefault(meta.uid, ([], [], (meta.namespace, meta.name)))
            entry[0].append(SandboxRecord(item.id, meta.attempt, item.state == cri.SANDBOX_READY, item.created_at))
        for item in containers:
            uid = item.labels.get(LABEL_UID, "")
            name = (item.labels.get(LABEL_NAMESPACE, ""), item.labels.get(LABEL_NAME, ""))
            entry = by_uid.setdefault(uid, ([], [], name))
            entry[1].append(_summary_record(item))
        alive = {item.id for item in containers}
        for gone in [cid for cid in self._ended if cid not in alive]:
            del self._ended[gone]
        return {
            uid: PodRuntime(uid, *name, order_sandboxes(s), order_containers(c))
            for uid, (s, c, name) in by_uid.items()
            if uid
        }

    async def pod(self, uid: str) -> PodRuntime:
        """All that the runtime has of one pod, in full."""
        at = time.time_ns()
        selector = {LABEL_UID: uid}
        sandbox_filter = cri.PodSandboxFilter(label_selector=selector)
        sandboxes = (await self._call("ListPodSandbox", cri.ListPodSandboxRequest(filter=sandbox_filter))).items
        container_filter = cri.ContainerFilter(label_selector=selector)
        listed = await self._call("ListContainers", cri.ListContainersRequest(filter=container_filter))
        namespace = name = ""
        sandbox_records = []
        for item in sandboxes:
            namespace, name = item.metadata.namespace, item.metadata.name
            record = await self._sandbox(item.id)
            if record is not None:
                sandbox_records.append(record)
        container_records = []
        for item in listed.containers:
            ended = self._ended.get(item.id)
            record_of = ended or await self._container(item.id, item.pod_sandbox_id)
            if record_of is not None:
                container_records.append(record_of)
        return PodRuntime(
            uid, namespace, name, order_sandboxes(sandbox_records), order_containers(container_records), at=at
        )

    async def _sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        try:
            answer = await self._call("PodSandboxStatus", cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id))
        except RuntimeNotFound:
            return None
        return sandbox_record(answer.status)

    async def _container(self, container_id: str, sandbox_id: str) -> ContainerRecord | None:
        try:
            answer = await self._call("ContainerStatus", cri.ContainerStatusRequest(container_id=container_id))
        except RuntimeNotFound:
            return None
        return self.remember(answer.status, sandbox_id)

    def remember(self, status: cri.ContainerStatus, sandbox_id: str) -> ContainerRecord:
        """The record of a container's status, kept if it can't change any more."""
        kept = self._ended.get(status.id)
        if kept is not None:
            return kept
        record = container_record(status, sandbox_id)
        if record.state is State.EXITED:
            self._ended[record.id] = record
        return record

    async def sandbox_pid_or_netns(self, sandbox_id: str) -> tuple[int, str]:
        """The sandbox's process and its network namespace, from the verbose status.

        (0, "") where the runtime does not tell.
        """
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        answer = await self._call("PodSandboxStatus", request)
        return termination_message.sandbox_info(dict(answer.info))

    # --- sandboxes and containers

    async def run_sandbox(self, config: cri.PodSandboxConfig, handler: str = "") -> str:
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return (await self._call("RunPodSandbox", request, timeout=4 * 60)).pod_sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """End everything in the sandbox and give its address back. Idempotent."""
        try:
            await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        except RuntimeNotFound:
            return

    async def remove_sandbox(self, sandbox_id: str) -> None:
        try:
            await self._call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        except RuntimeNotFound:
            return

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        return (await self._call("CreateContainer", request)).container_id

    async def start_container(self, container_id: str) -> None:
        await self._call("StartContainer", cri.StartContainerRequest(container_id=container_id))

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        """SIGTERM, the grace period, SIGKILL; returns when it is dead. Idempotent."""
        request = cri.StopContainerRequest(container_id=container_id, timeout=grace_seconds)
        try:
            await self._call("StopContainer", request, timeout=grace_seconds + _DEADLINE)
        except RuntimeNotFound:
            return

    async def remove_container(self, container_id: str) -> None:
        try:
            await self._call("RemoveContainer", cri.RemoveContainerRequest(container_id=container_id))
        except RuntimeNotFound:
            return

    async def update_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        await self._call("UpdateContainerResources", request)

    async def checkpoint(self, container_id: str, location: str, timeout_seconds: int = 0) -> None:
        """Write the state of a running container to a file. Raises RuntimeFailure."""
        request = cri.CheckpointContainerRequest(container_id=container_id, location=location, timeout=timeout_seconds)
        await self._call("CheckpointContainer", request, timeout=timeout_seconds or _DEADLINE)

    async def reopen_log(self, container_id: str) -> None:
        await self._call("ReopenContainerLog", cri.ReopenContainerLogRequest(container_id=container_id))

    async def exec_sync(
        self, container_id: str, command: list[str], timeout_seconds: float
    ) -> tuple[int, bytes, bytes]:
        """Run a command to its end: (exit code, stdout, stderr)."""
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=max(1, int(timeout_seconds)))
        answer = await self._call("ExecSync", request, timeout=timeout_seconds + 5)
        return answer.exit_code, answer.stdout, answer.stderr

    async def exec_url(
        self, container_id: str, command: list[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        request = cri.ExecRequest(
            container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr
        )
        return (await self._call("Exec", request)).url

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        request = cri.AttachRequest(container_id=container_id, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)
        return (await self._call("Attach", request)).url

    async def port_forward_url(self, sandbox_id: str, ports: list[int]) -> str:
        return (await self._call("PortForward", cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports))).url

    async def container_stats(self) -> list[cri.ContainerStats]:
        return list((await self._call("ListContainerStats", cri.ListContainerStatsRequest())).stats)

    async def metrics(self) -> tuple[list[cri.MetricDescriptor], list[cri.PodSandboxMetrics]]:
        """What there is to know of containers by cAdvisor's names. Raises Unsupported."""
        described = await self._call("ListMetricDescriptors", cri.ListMetricDescriptorsRequest())
        found = await self._call("ListPodSandboxMetrics", cri.ListPodSandboxMetricsRequest())
        return list(described.descriptors), list(found.pod_metrics)

    async def sandbox_stats(self) -> list[cri.PodSandboxStats]:
        """Usage of pods as a whole, with their network. Raises Unsupported."""
        return list((await self._call("ListPodSandboxStats", cri.ListPodSandboxStatsRequest())).stats)

    # --- images

    async def image(self, reference: str) -> cri.Image | None:
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference))
        answer = await self._call("ImageStatus", request, images=True)
        return answer.image if answer.HasField("image") and answer.image.id else None

    async def pull_image(
        self, reference: str, auth: cri.AuthConfig | None, sandbox_config: cri.PodSandboxConfig | None
    ) -> str:
        """Pull; how long it may take is the caller's to bound, since a large image on a slow line is no failure."""
        request = cri.PullImageRequest(image=cri.ImageSpec(image=reference), auth=auth, sandbox_config=sandbox_config)
        return (await self._call("PullImage", request, timeout=3600, images=True)).image_ref

    async def images(self) -> list[cri.Image]:
        return list((await self._call("ListImages", cri.ListImagesRequest(), images=True)).images)

    async def remove_image(self, image_id: str) -> None:
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=image_id))
        await self._call("RemoveImage", request, images=True)

    async def image_fs(self) -> cri.ImageFsInfoResponse:
        return await self._call("ImageFsInfo", cri.ImageFsInfoRequest(), images=True)


def _summary_record(item: cri.Container) -> ContainerRecord:
    return ContainerRecord(
        item.id,
        item.labels.get(LABEL_CONTAINER, item.metadata.name),
        item.pod_sandbox_id,
        _STATES[item.state],
        created_at=item.created_at,
        restart_count=_restarts(item.annotations, item.metadata.attempt),
    )


def _restarts(annotations: Any, attempt: int) -> int:
    text = annotations.get(ANNOTATION_RESTARTS, "")
    return int(text) if text.isdigit() else attempt


def sandbox_record(status: cri.PodSandboxStatus) -> SandboxRecord:
    """The record of a sandbox's status."""
    ips = [status.network.ip, *(extra.ip for extra in status.network.additional_ips)]
    return SandboxRecord(
        status.id,
        status.metadata.attempt,
        status.state == cri.SANDBOX_READY,
        status.created_at,
        tuple(ip for ip in ips if ip),
        status.linux.namespaces.options.network == cri.NODE,
    )


def container_record(status: cri.ContainerStatus, sandbox_id: str) -> ContainerRecord:
    """The record of a container's status, with its termination message if it has ended."""
    state = _STATES[status.state]
    message = status.message
    if state is State.EXITED:
        message = termination_message.read(status) or message
    user = None
    if status.HasField("user") and status.user.HasField("linux"):
        linux = status.user.linux
        user = (linux.uid, linux.gid, tuple(linux.supplemental_groups))
    return ContainerRecord(
        id=status.id,
        name=status.labels.get(LABEL_CONTAINER, status.metadata.name),
        sandbox_id=sandbox_id,
        state=state,
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=message,
        image=status.image.user_specified_image or status.image.image,
        image_ref=status.image_ref,
        restart_count=_restarts(status.annotations, status.metadata.attempt),
        spec_hash=status.annotations.get(ANNOTATION_HASH, ""),
        log_path=status.log_path,
        user=user,
    )
