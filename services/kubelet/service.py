"""The Kubelet gRPC service.

What the apiserver forwards (logs, exec, attach, port-forward) and what the kubelet itself can tell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lightkube.models import core_v1

from machinery.api import errors
from protos.cutaway.v1 import kubelet_pb2, kubelet_pb2_grpc, stream_pb2
from services.kubelet import exec_stream, logs, pod_spec, port_forward
from services.kubelet.node import Node
from services.kubelet.pod_worker import PodWorker
from services.kubelet.pods import Pods
from services.kubelet.runtime import RuntimeFailure
from services.kubelet.runtime_state import ContainerRecord, State
from services.kubelet.stats import StatsCollector
from services.kubelet.status import CONTAINER_STATUSES

SERVICE_NAME = "cutaway.v1.Kubelet"


class KubeletService(kubelet_pb2_grpc.KubeletServicer):
    """Answers for the pods of this node."""

    def __init__(self, node: Node, pods: Pods, stats: StatsCollector) -> None:
        self._node = node
        self._pods = pods
        self._stats = stats

    # --- finding

    def _worker(self, namespace: str, pod: str) -> PodWorker:
        worker = self._pods.get(namespace, pod)
        if worker is None:
            raise errors.not_found("", "pods", pod)
        return worker

    @staticmethod
    def _container(pod: core_v1.Pod, name: str) -> pod_spec.AnyContainer:
        if not name:
            annotated = (pod.metadata.annotations or {}).get("kubectl.kubernetes.io/default-container", "")
            name = annotated or pod.spec.containers[0].name
        container = pod_spec.find_container(pod, name)
        if container is None:
            raise errors.BadRequest(f"container {name} is not valid for pod {pod.metadata.name}")
        return container

    async def _running(self, namespace: str, pod: str, name: str) -> tuple[PodWorker, ContainerRecord]:
        worker = self._worker(namespace, pod)
        container = self._container(worker.pod, name)
        record = worker.runtime.latest(container.name)
        if record is None or not record.running:
            raise errors.NotFound(f'container not found ("{container.name}")')
        return worker, record

    # --- logs

    async def Logs(self, request: stream_pb2.LogsRequest, context: Any) -> AsyncIterator[stream_pb2.Chunk]:
        """A container's log."""
        async for data in self.log_chunks(request):
            yield stream_pb2.Chunk(data=data)

    async def log_chunks(self, request: stream_pb2.LogsRequest) -> AsyncIterator[bytes]:
        """A container's log as pieces of bytes. Raises ApiError with upstream's words."""
        worker = self._worker(request.namespace, request.pod)
        container = self._container(worker.pod, request.container)
        record = self._log_record(worker, container.name, previous=request.previous)
        if not record.log_path:
            return  # a simulated container writes nothing
        since = request.since_time
        if request.HasField("since_seconds"):
            since = logs_since(self._node.clock() - request.since_seconds)
        options = logs.LogOptions(
            follow=request.follow,
            timestamps=request.timestamps,
            since=since,
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
            limit_bytes=request.limit_bytes if request.HasField("limit_bytes") else None,
            stream=request.stream or "All",
        )

        def running() -> bool:
            latest = next((c for c in worker.runtime.containers if c.id == record.id), None)
            return latest is not None and latest.running and worker.state != "gone"

        try:
            async for chunk in logs.read_log(Path(record.log_path), options, running):
                yield chunk
        except FileNotFoundError as error:
            raise errors.NotFound(f"the log of container {container.name} is not there any more") from error

    @staticmethod
    def _log_record(worker: PodWorker, name: str, *, previous: bool) -> ContainerRecord:
        pod = worker.pod.metadata.name
        runs = [r for r in worker.runtime.runs_of(name) if r.state is not State.CREATED]
        if previous:
            ended = runs[1:] if runs and runs[0].running else runs[1:] or runs[:0]
            if not ended:
                raise errors.BadRequest(f'previous terminated container "{name}" in pod "{pod}" not found')
            return ended[0]
        if runs:
            return runs[0]
        for entry in (e for g in CONTAINER_STATUSES for e in worker.status.get(g) or ()):
            if entry["name"] == name and (waiting := entry["state"].get("waiting")):
                reason = waiting.get("reason", "ContainerCreating")
                if reason in ("ErrImagePull", "ImagePullBackOff"):
                    raise errors.BadRequest(
                        f'container "{name}" in pod "{pod}" is waiting to start: trying and failing to pull image'
                    )
                raise errors.BadRequest(f'container "{name}" in pod "{pod}" is waiting to start: {reason}')
        raise errors.BadRequest(f'container "{name}" in pod "{pod}" is not available')

    # --- sessions

    async def Exec(self, request_iterator: Any, context: Any) -> AsyncIterator[stream_pb2.ExecOutput]:
        """Run a command in a container."""
        start = await _first(request_iterator)
        url = await self.exec_url(start)
        async for frame in exec_stream.pump(url, request_iterator):
            yield frame

    async def exec_url(self, start: stream_pb2.ExecStart) -> str:
        """The runtime's URL for a command."""
        if not start.command:
            raise errors.BadRequest("you must specify at least 1 command for the container")
        _, record = await self._running(start.namespace, start.pod, start.container)
        try:
            return await self._node.runtime.exec_url(
                record.id, list(start.command), tty=start.tty, stdin=start.stdin,
                stdout=start.stdout, stderr=start.stderr and not start.tty,
            )  # fmt: skip
        except RuntimeFailure as error:
            raise errors.InternalError(error.message) from error

    async def Attach(self, request_iterator: Any, context: Any) -> AsyncIterator[stream_pb2.ExecOutput]:
        """Join a container's own streams."""
        start = await _first(request_iterator)
        async for frame in exec_stream.pump(await self.attach_url(start), request_iterator):
            yield frame

    async def attach_url(self, start: stream_pb2.ExecStart) -> str:
        worker, record = await self._running(start.namespace, start.pod, start.container)
        container = pod_spec.find_container(worker.pod, record.name)
        tty = bool(container is not None and container.tty)
        try:
            return await self._node.runtime.attach_url(
                record.id, tty=tty, stdin=start.stdin, stdout=start.stdout, stderr=start.stderr and not tty
            )
        except RuntimeFailure as error:
            raise errors.InternalError(error.message) from error

    async def PortForward(self, request_iterator: Any, context: Any) -> AsyncIterator[port_forward.Frame]:
        """TCP connections into the pod."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("frame") != "start":
            raise errors.BadRequest("the first frame must be `start`")
        namespace = await self.network_namespace(first.start.namespace, first.start.pod)
        async for frame in port_forward.PortForwarder(namespace).run(aiter(request_iterator)):
            yield frame

    async def network_namespace(self, namespace: str, pod: str) -> str:
        """A path of the pod's network namespace."""
        worker = self._worker(namespace, pod)
        if worker.pod.spec.hostNetwork:
            return "/proc/self/ns/net"
        sandbox = worker.runtime.ready_sandbox
        if sandbox is None:
            raise errors.BadRequest(f"pod {pod} is not running")
        pid, path = await self._node.runtime.sandbox_pid_or_netns(sandbox.id)
        if path:
            return path
        if pid:
            return f"/proc/{pid}/ns/net"
        raise errors.InternalError("the runtime does not tell the pod's network namespace")

    # --- views

    async def ListPods(self, request: kubelet_pb2.ListPodsRequest, context: Any) -> kubelet_pb2.ListPodsResponse:
        """The pods as the kubelet sees them."""
        return kubelet_pb2.ListPodsResponse(pods=[_pod_view(worker) for worker in self._pods.workers.values()])

    async def Stats(self, request: kubelet_pb2.StatsRequest, context: Any) -> kubelet_pb2.StatsResponse:
        """Usage of node, pods and containers."""
        return await self._stats.response()


async def _first(frames: Any) -> stream_pb2.ExecStart:
    first = await anext(aiter(frames), None)
    if first is None or first.WhichOneof("frame") != "start":
        raise errors.BadRequest("the first frame must be `start`")
    return first.start


def logs_since(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _pod_view(worker: PodWorker) -> kubelet_pb2.KubeletPod:
    meta = worker.pod.metadata
    view = kubelet_pb2.KubeletPod(
        namespace=meta.namespace or "",
        name=meta.name or "",
        uid=worker.uid,
        phase=worker.status.get("phase", ""),
        ip=worker.status.get("podIP", ""),
        sandbox_id=worker.runtime.sandboxes[0].id if worker.runtime.sandboxes else "",
        worker=worker.state,
        error=worker.error,
    )
    for group in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for entry in worker.status.get(group) or ():
            state = next(iter(entry["state"]), "waiting")
            body = entry["state"].get(state) or {}
            view.containers.add(
                name=entry["name"],
                id=(entry.get("containerID") or "").removeprefix("containerd://"),
                state=state,
                reason=body.get("reason", ""),
                exit_code=body.get("exitCode", 0),
                restart_count=entry["restartCount"],
                ready=entry["ready"],
            )
    return view
