"""A connection to containerd: namespaced calls with deadlines, whose failures are ours.

`ctd.tasks.Start(request)` sends one call in the configured namespace. Unary calls have a deadline of
`DEFAULT_TIMEOUT` seconds unless another is given. Streams (events, content) have none, and are used by the few
callers that read them to their end.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from cri import containerd_api as api
from cri.errors import CriError, from_grpc

DEFAULT_TIMEOUT = 30.0
# A spec, a list of 10,000 snapshots, an image's config: far below it, far above gRPC's 4 MiB.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


class Service:
    """One containerd service; each unary method is awaitable and raises `CriError`s."""

    def __init__(self, channel: grpc.aio.Channel, name: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub = api.Stub(channel, api.SERVICES[name])
        self._name = name
        self._metadata = metadata
        self._calls: dict[str, Callable[..., Awaitable[Any]]] = {}

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        raw = getattr(self._stub, method)
        doing = f"containerd {self._name}.{method}"

        async def call(request: Any = None, *, timeout: float | None = DEFAULT_TIMEOUT, lease: str = "") -> Any:
            metadata = (*self._metadata, ("containerd-lease", lease)) if lease else self._metadata
            try:
                return await raw(
                    api.well_known.Empty() if request is None else request, metadata=metadata, timeout=timeout
                )
            except grpc.aio.AioRpcError as error:
                raise from_grpc(error, doing) from error

        setattr(self, method, call)
        return call

    def stream(self, method: str, request: Any = None, *, lease: str = "") -> Any:
        """The raw streaming call; its errors are gRPC's (`errors.from_grpc` translates)."""
        metadata = (*self._metadata, ("containerd-lease", lease)) if lease else self._metadata
        call = getattr(self._stub, method)
        return call(metadata=metadata) if request is None else call(request, metadata=metadata)


class Containerd:
    """containerd at a socket, in one of its namespaces."""

    def __init__(self, socket: str, namespace: str) -> None:
        self.socket = socket
        self.namespace = namespace
        self.channel = grpc.aio.insecure_channel(
            f"unix://{socket}",
            options=(
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                # containerd's restart takes a second; the default back-off would grow to two minutes.
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ),
        )
        metadata = (("containerd-namespace", namespace),)
        for name in api.SERVICES:
            setattr(self, name, Service(self.channel, name, metadata))

    containers: Service
    content: Service
    diff: Service
    events: Service
    images: Service
    introspection: Service
    leases: Service
    namespaces: Service
    snapshots: Service
    tasks: Service
    version: Service

    async def close(self) -> None:
        await self.channel.close()

    async def ensure_namespace(self) -> None:
        """Creates the namespace if containerd has none of that name."""
        from cri.errors import AlreadyExists

        try:
            await self.namespaces.Create(
                api.namespaces.CreateNamespaceRequest(namespace=api.namespaces.Namespace(name=self.namespace))
            )
        except AlreadyExists:
            return


__all__ = ["PROCESS_TYPE", "RESOURCES_TYPE", "SPEC_TYPE", "Containerd", "CriError", "Service"]
