"""Many kubelets in one process.

One connection, one watch on pods and one on nodes, one batch of leases, one of statuses.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
from lightkube.models import core_v1

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.informer import Informer
from machinery.component import grpc_server, http_server, logs, process
from machinery.component.process import Context
from protos.cutaway.v1 import kubelet_pb2, kubelet_pb2_grpc, stream_pb2
from services.kubelet.cgroups import Cgroups
from services.kubelet.config import KubeletConfig
from services.kubelet.container_config import NodeSettings
from services.kubelet.heartbeat import Heartbeats
from services.kubelet.hollow.handlers import HollowHandlers
from services.kubelet.hollow.runtime import HollowRuntime
from services.kubelet.images import Images
from services.kubelet.node import Node
from services.kubelet.node_status import NodeStatus
from services.kubelet.objects import Objects
from services.kubelet.pods import Pods
from services.kubelet.service import SERVICE_NAME, KubeletService
from services.kubelet.stats import StatsCollector
from services.kubelet.status_manager import StatusManager
from services.kubelet.volumes.manager import Volumes

log = logs.get("hollow")
_REGISTRATIONS_MAX = 64  # at once


class HollowConfig(KubeletConfig):
    """The configuration of a process of hollow nodes."""

    name: str = "hollow-nodes"
    nodes: Annotated[list[str], msgspec.Meta(description="Names of the nodes, or how many there are")] = msgspec.field(
        default_factory=lambda: ["1"]
    )
    node_prefix: Annotated[str, msgspec.Meta(description="Names are this and a number if a number is given")] = (
        "hollow-"
    )
    root_dir: str = "/"
    # Nothing on a hollow node changes by itself, and a thousand of them look at their status.
    status_seconds: float = 60.0
    capacity: dict[str, str] = msgspec.field(
        default_factory=lambda: {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi"}
    )

    def node_names(self) -> list[str]:
        if len(self.nodes) == 1 and self.nodes[0].isdigit():
            return [f"{self.node_prefix}{number}" for number in range(int(self.nodes[0]))]
        return self.nodes


class HollowNode:
    """One node of the fleet."""

    def __init__(self, fleet: Fleet, name: str, index: int) -> None:
        config = fleet.config
        self.runtime = HollowRuntime(cidr=f"10.{128 + index // 250 % 100}.{index % 250}.0/24")
        ip = config.node_ip or "127.0.0.1"
        runtime: Any = self.runtime
        root = Path(config.root_dir)
        self.status = NodeStatus(
            config,
            fleet.client,
            runtime,
            name=name,
            ips=(ip,),
            grpc_address=fleet.grpc_address,
            https_port=fleet.https_port,
        )
        handlers: Any = HollowHandlers(self.runtime)
        self.node = Node(
            name=name,
            root=root,
            settings=fleet.settings,
            client=fleet.client,
            runtime=runtime,
            cgroups=Cgroups(enabled=False),
            objects=fleet.objects,
            volumes=Volumes(root, fleet.objects),
            images=Images(runtime, fleet.objects),
            handlers=handlers,
            statuses=fleet.statuses,
            events=fleet.events,
            tasks=fleet.tasks,
            ips=(ip,),
            allocatable=self.status.allocatable,
            real_files=False,
        )
        self.node.labels = lambda: self.status.labels
        self.pods = Pods(self.node, config.max_pods)
        self.runtime.changed = self.pods.changed
        self.service = KubeletService(self.node, self.pods, StatsCollector(self.node))


class Fleet:
    """The nodes and what they share."""

    def __init__(
        self,
        config: HollowConfig,
        client: ApiClient,
        tasks: asyncio.TaskGroup,
        *,
        grpc_address: str = "",
        https_port: int = 10250,
    ) -> None:
        self.config = config
        self.client = client
        self.tasks = tasks
        self.grpc_address = grpc_address
        self.https_port = https_port
        self.settings = NodeSettings(node_name="hollow", log_root="/", cluster_domain=config.cluster_domain)
        self.objects = Objects(client, tasks, follow=False)
        self.statuses = StatusManager(client)
        self.events = EventRecorder(client, "kubelet", config.name)
        self.heartbeats = Heartbeats(client, config.lease_seconds)
        self.nodes = {name: HollowNode(self, name, index) for index, name in enumerate(config.node_names())}
        self.ready = False

    async def start(self) -> None:
        """Register every node, then run its pods."""
        pods: Informer[Any] = Informer(self.client, kinds.POD)
        nodes: Informer[Any] = Informer(self.client, kinds.NODE)
        nodes.add_handler(self._node_changed)
        pods.add_handler(self._pod_changed)
        for what, run in (
            ("events", self.events.run),
            ("statuses", self.statuses.run),
            ("leases", self.heartbeats.run),
            ("nodes", nodes.run),
        ):
            self.tasks.create_task(run(), name=what)
        for hollow in self.nodes.values():
            await hollow.pods.start({})
        self.tasks.create_task(pods.run(), name="pods")
        gate = asyncio.Semaphore(_REGISTRATIONS_MAX)
        await asyncio.gather(*(self._register(hollow, gate) for hollow in self.nodes.values()))
        await pods.synced.wait()
        self.ready = True
        log.info("hollow nodes run", nodes=len(self.nodes))

    async def _register(self, hollow: HollowNode, gate: asyncio.Semaphore) -> None:
        async with gate:
            self.tasks.create_task(hollow.status.run(), name=f"node {hollow.node.name}")
            await hollow.status.registered.wait()
        self.heartbeats.add(hollow.node.name, lambda: hollow.status.uid)

    def _node_changed(self, old: core_v1.Node | None, new: core_v1.Node | None) -> None:
        hollow = self.nodes.get((new or old).metadata.name or "")  # type: ignore[union-attr]
        if hollow is not None:
            hollow.status.node_changed(old, new)

    def _pod_changed(self, old: core_v1.Pod | None, new: core_v1.Pod | None) -> None:
        """A pod becomes a node's when it is bound to it; it never moves."""
        if old is not None and not old.spec.nodeName:
            old = None
        name = (new or old).spec.nodeName if new is not None or old is not None else None
        hollow = self.nodes.get(name or "")
        if hollow is not None:
            hollow.pods.on_change(old, new)


class FleetService(kubelet_pb2_grpc.KubeletServicer):
    """The Kubelet service for all of the fleet's pods: which node a pod is on follows from its name."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def Logs(self, request: stream_pb2.LogsRequest, context: Any) -> Any:
        """The log of a simulated container: empty."""
        for hollow in self._fleet.nodes.values():
            if hollow.pods.get(request.namespace, request.pod) is not None:
                async for chunk in hollow.service.Logs(request, context):
                    yield chunk
                return

    async def ListPods(self, request: kubelet_pb2.ListPodsRequest, context: Any) -> kubelet_pb2.ListPodsResponse:
        """The pods of all nodes."""
        out = kubelet_pb2.ListPodsResponse()
        for hollow in self._fleet.nodes.values():
            out.pods.extend((await hollow.service.ListPods(request, context)).pods)
        return out

    async def Exec(self, request_iterator: Any, context: Any) -> Any:
        """Nothing runs here."""
        raise errors.BadRequest("a simulated container runs no commands")
        yield  # an answer of frames, though none comes

    async def Attach(self, request_iterator: Any, context: Any) -> Any:
        """Nothing runs here."""
        raise errors.BadRequest("a simulated container has no streams")
        yield

    async def PortForward(self, request_iterator: Any, context: Any) -> Any:
        """Nothing listens here."""
        raise errors.BadRequest("a simulated pod has no network")
        yield


async def serve(ctx: Context[HollowConfig]) -> None:
    """Run the fleet until the process ends."""
    config = ctx.config
    client = await ApiClient.connect(config.apiserver, config.tls, user_agent="hollow-nodes")
    ctx.on_stop(client.close)
    fleet = Fleet(config, client, ctx.tasks, grpc_address=config.advertise_grpc or config.grpc_address)
    ctx.health.add_ready("nodes", lambda: None if fleet.ready else "nodes are being registered")
    if config.grpc_address:
        server = await grpc_server.serve(
            config,
            lambda s: kubelet_pb2_grpc.add_KubeletServicer_to_server(FleetService(fleet), s),
            service_names=[SERVICE_NAME],
            health=ctx.health,
        )
        ctx.on_stop(server.stop)
    if config.http_address:
        https = await http_server.serve(config, ctx.health)
        ctx.on_stop(https.stop)
        fleet.https_port = https.port
    await fleet.start()


def main(config: HollowConfig) -> None:
    """Run the process."""
    process.run(serve, config)
