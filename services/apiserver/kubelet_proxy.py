"""The way from the apiserver to a pod's kubelet: logs, exec, attach and port-forward over the kubelet's gRPC, or over
upstream's HTTPS API where that is what the kubelet speaks (`kubelet_https.py`).

Which kubelet that is stands in the cluster's state: a pod names its node, the node its address. Frames are forwarded
as they come, in both directions; both fronts (gRPC and REST) use the same four methods. Whoever calls has already
been authorized.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from machinery.api import errors
from machinery.component import grpc_errors
from machinery.component.tls import TlsFiles, channel_credentials, client_context
from protos.cutaway.v1 import kubelet_pb2, kubelet_pb2_grpc, stream_pb2
from services.apiserver.kubelet_https import HttpsKubelet

GRPC_ANNOTATION = "cutaway.dev/kubelet-grpc"
DEFAULT_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"

CONNECT_SECONDS_MAX = 5.0
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A kubelet that starts again is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

# get(storage, namespace, name) -> the object as a dict that is not to be changed, or None.
Objects = Callable[[str, str, str], Mapping[str, Any] | None]
ListObjects = Callable[[str, str], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class KubeletAddress:
    """Where a node's kubelet listens: `grpc` is "ip:port" or "" if it speaks only upstream's HTTPS API at `https`."""

    node: str
    grpc: str
    https: str


class KubeletProxy:
    """Finds kubelets and keeps one channel to each. `tls` is the apiserver's identity towards kubelets."""

    def __init__(self, objects: Objects, tls: TlsFiles, list_objects: ListObjects | None = None) -> None:
        self.objects = objects
        # Every object of a kind in a namespace ("": in all).
        self.list_objects: ListObjects = list_objects or (lambda _storage, _namespace: ())
        self.tls = tls
        self._credentials: grpc.ChannelCredentials | None = None
        self._context: ssl.SSLContext | None = None
        self._channels: dict[str, tuple[str, grpc.aio.Channel]] = {}

    async def close(self) -> None:
        """Close every channel."""
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for _, channel in channels))

    # -- where --

    def pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        """The pod. Raises NotFound."""
        pod = self.objects("pods", namespace, name)
        if pod is None:
            raise errors.not_found("", "pods", name)
        return pod

    def container_of(self, pod: Mapping[str, Any], asked: str) -> str:
        """The container that is meant: the asked one if the pod has it, the default or only one if none was named."""
        meta, spec = pod["metadata"], pod.get("spec") or {}
        containers = [c["name"] for c in spec.get("containers") or ()]
        others = [c["name"] for field in ("initContainers", "ephemeralContainers") for c in spec.get(field) or ()]
        if asked:
            if asked not in containers and asked not in others:
                raise errors.BadRequest(f"container {asked} is not valid for pod {meta['name']}")
            return asked
        default = (meta.get("annotations") or {}).get(DEFAULT_CONTAINER_ANNOTATION)
        if default in containers:
            return str(default)
        if len(containers) == 1:
            return str(containers[0])
        text = f"a container name must be specified for pod {meta['name']}, choose one of: [{' '.join(containers)}]"
        inits = [c["name"] for c in spec.get("initContainers") or ()]
        if inits:
            text += f" or one of the init containers: [{' '.join(inits)}]"
        raise errors.BadRequest(text)

    def kubelet_of(self, pod: Mapping[str, Any]) -> KubeletAddress:
        """The kubelet of the pod's node. Raises BadRequest if it has none yet, NotFound if the node is gone."""
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise errors.BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self.address_of(node)

    def address_of(self, node_name: str) -> KubeletAddress:
        """Where the kubelet of a node listens."""
        node = self.objects("nodes", "", node_name)
        if node is None:
            raise errors.not_found("", "nodes", node_name)
        status = node.get("status") or {}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
        addresses = {item.get("type"): item.get("address") for item in reversed(status.get("addresses") or [])}
        host = addresses.get("InternalIP") or addresses.get("Hostname") or node_name
        host = f"[{host}]" if ":" in host else host
        grpc_address = (node["metadata"].get("annotations") or {}).get(GRPC_ANNOTATION, "")
        return KubeletAddress(node_name, grpc_address, f"{host}:{port}")

    async def _kubelet(self, address: KubeletAddress) -> _Grpc | HttpsKubelet:
        """The way to a kubelet: gRPC where it says that it speaks it, and does; upstream's HTTPS API otherwise.

        The annotation outlives the kubelet that wrote it: where another program has taken its place on the node, nobody
        listens there any more.
        """
        if address.grpc and not _is_address(address.grpc):
            # gRPC would take a name, a socket file, another resolver: a node must not choose those for us.
            raise errors.ServiceUnavailable(f"node {address.node}: {GRPC_ANNOTATION} {address.grpc!r} is not IP:port")
        if address.grpc:
            channel = self._channel(address)
            if await _connected(channel):
                return _Grpc(channel)
        if not _is_address(address.https):
            raise errors.ServiceUnavailable(f"node {address.node}: {address.https!r} is not IP:port")
        if self._context is None:
            self._context = client_context(self.tls)
        return HttpsKubelet(address.node, address.https, self._context)

    def _channel(self, address: KubeletAddress) -> grpc.aio.Channel:
        known = self._channels.get(address.node)
        if known is not None and known[0] == address.grpc:
            return known[1]
        if self._credentials is None:
            self._credentials = channel_credentials(self.tls)
        channel = grpc.aio.secure_channel(address.grpc, self._credentials, options=_CHANNEL_OPTIONS)
        self._channels[address.node] = (address.grpc, channel)
        return channel

    async def stats(self, node: str, timeout: float) -> kubelet_pb2.StatsResponse:
        """What a node's kubelet measures now. Raises ApiError if it does not answer in time."""
        return await (await self._kubelet(self.address_of(node))).stats(timeout)

    # -- streams --

    async def logs(self, request: stream_pb2.LogsRequest) -> AsyncIterator[stream_pb2.Chunk]:
        """A container's log. Ends with the log, or (follow) with the container."""
        pod = self.pod(request.namespace, request.pod)
        request.container = self.container_of(pod, request.container)
        kubelet = await self._kubelet(self.kubelet_of(pod))
        async with aclosing(kubelet.logs(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def exec(self, frames: AsyncIterator[stream_pb2.ExecInput]) -> AsyncIterator[stream_pb2.ExecOutput]:
        """Run a command. The first frame is the start; the last answer is the status."""
        start, kubelet = await self._session(frames)
        async with aclosing(kubelet.exec(start, frames)) as outputs:
            async for output in outputs:
                yield output

    async def attach(self, frames: AsyncIterator[stream_pb2.ExecInput]) -> AsyncIterator[stream_pb2.ExecOutput]:
        """Attach to a container's main process."""
        start, kubelet = await self._session(frames)
        async with aclosing(kubelet.attach(start, frames)) as outputs:
            async for output in outputs:
                yield output

    async def _session(
        self, frames: AsyncIterator[stream_pb2.ExecInput]
    ) -> tuple[stream_pb2.ExecStart, _Grpc | HttpsKubelet]:
        first = await anext(frames, None)
        if first is None or first.WhichOneof("frame") != "start":
            raise errors.BadRequest("the first frame must be the start of the session")
        pod = self.pod(first.start.namespace, first.start.pod)
        first.start.container = self.container_of(pod, first.start.container)
        return first.start, await self._kubelet(self.kubelet_of(pod))

    async def port_forward(
        self, frames: AsyncIterator[stream_pb2.PortForwardFrame]
    ) -> AsyncIterator[stream_pb2.PortForwardFrame]:
        """Forward TCP connections into a pod. The first frame is the start."""
        first = await anext(frames, None)
        if first is None or first.WhichOneof("frame") != "start":
            raise errors.BadRequest("the first frame must be the start of the session")
        pod = self.pod(first.start.namespace, first.start.pod)
        phase = (pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            raise errors.BadRequest(f"unable to forward port because pod is not running. Current status={phase}")
        kubelet = await self._kubelet(self.kubelet_of(pod))
        async with aclosing(kubelet.port_forward(first.start, frames)) as answers:
            async for frame in answers:
                yield frame


class _Grpc:
    """A kubelet of ours: the messages go as they are."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = kubelet_pb2_grpc.KubeletStub(channel)  # type: ignore[no-untyped-call]

    async def stats(self, timeout: float) -> kubelet_pb2.StatsResponse:
        try:
            found: kubelet_pb2.StatsResponse = await self._stub.Stats(kubelet_pb2.StatsRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise grpc_errors.from_rpc_error(error) from error
        return found

    def logs(self, request: stream_pb2.LogsRequest) -> AsyncGenerator[stream_pb2.Chunk, None]:
        return _translated(self._stub.Logs(request))

    def exec(self, start: stream_pb2.ExecStart, frames: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        return _translated(self._stub.Exec(_preceded(stream_pb2.ExecInput(start=start), frames)))

    def attach(self, start: stream_pb2.ExecStart, frames: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        return _translated(self._stub.Attach(_preceded(stream_pb2.ExecInput(start=start), frames)))

    def port_forward(
        self, start: stream_pb2.PortForwardStart, frames: AsyncIterator[Any]
    ) -> AsyncGenerator[stream_pb2.PortForwardFrame, None]:
        return _translated(self._stub.PortForward(_preceded(stream_pb2.PortForwardFrame(start=start), frames)))


async def _connected(channel: grpc.aio.Channel) -> bool:
    """Whether somebody answers there. One that is known to does not cost a moment."""
    state = channel.get_state(try_to_connect=True)
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            while state is not grpc.ChannelConnectivity.READY:
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    return False
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        return False
    return True


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return port.isdigit() and 0 < int(port) < 65536


async def _preceded(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for frame in rest:
        yield frame


async def _translated(call: Any) -> AsyncGenerator[Any, None]:
    """What a call streams, with gRPC's errors as ours; the call is cancelled when the consumer stops."""
    try:
        async for message in call:
            yield message
    except grpc.RpcError as error:
        raise grpc_errors.from_rpc_error(error) from error
    finally:
        call.cancel()
