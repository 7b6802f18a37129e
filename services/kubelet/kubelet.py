"""One kubelet put together: the parts in the order in which they depend on each other."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.informer import Informer
from machinery.component import grpc_server, http_server, logs, process
from machinery.component.process import Context, Fatal
from protos.cutaway.v1 import kubelet_pb2_grpc
from services.kubelet import cgroups, node_info
from services.kubelet.config import KubeletConfig
from services.kubelet.container_config import NodeSettings
from services.kubelet.handlers import Handlers
from services.kubelet.heartbeat import Heartbeats
from services.kubelet.images import Images
from services.kubelet.node import Node
from services.kubelet.node_status import NodeStatus
from services.kubelet.objects import Objects
from services.kubelet.pod_events import PodEvents
from services.kubelet.pods import Pods
from services.kubelet.runtime import Runtime, RuntimeFailure
from services.kubelet.runtime_state import PodRuntime
from services.kubelet.service import SERVICE_NAME, KubeletService
from services.kubelet.stats import StatsCollector
from services.kubelet.status_manager import StatusManager
from services.kubelet.volumes.manager import Volumes

log = logs.get("kubelet")
_RUNTIME_WAIT_SECONDS = 0.2


def node_settings(config: KubeletConfig, name: str) -> NodeSettings:
    """What the node contributes to its pods' configuration."""
    return NodeSettings(
        node_name=name,
        log_root=config.pod_logs_dir,
        cluster_domain=config.cluster_domain,
        cluster_dns=tuple(config.cluster_dns),
        host_dns=node_info.resolver(config.resolv_conf),
        node_memory_bytes=node_info.memory_bytes(),
        cgroup_v2=cgroups.is_v2(),
        seccomp_default=config.seccomp_default,
        seccomp_root=str(Path(config.root_dir) / "seccomp"),
    )


async def serve(ctx: Context[KubeletConfig]) -> None:
    """Start a kubelet; it lives until the process ends. Pods stay when it ends."""
    config, tasks = ctx.config, ctx.tasks
    name = config.node_name or socket.gethostname().lower()
    ips = (config.node_ip or node_info.default_ip(),)
    root = Path(config.root_dir)
    _prepare_root(root)

    client = await ApiClient.connect(config.apiserver, config.tls, user_agent="kubelet")
    ctx.on_stop(client.close)
    runtime = Runtime(config.runtime_endpoint)
    ctx.on_stop(runtime.close)
    events = EventRecorder(client, "kubelet", name)
    pod_cgroups = cgroups.Cgroups(
        config.cgroup_root, driver=config.cgroup_driver, pods_pids_limit=config.pod_pids_limit
    )
    workers: dict = {}
    objects = Objects(client, tasks, wake=lambda uid: workers[uid].wake() if uid in workers else None)
    statuses = StatusManager(client)
    node = Node(
        name=name, root=root, settings=node_settings(config, name), client=client, runtime=runtime,
        cgroups=pod_cgroups, objects=objects, volumes=Volumes(root, objects), images=Images(runtime, objects),
        handlers=Handlers(runtime), statuses=statuses, events=events, tasks=tasks, ips=ips,
    )  # fmt: skip
    pods = Pods(node, config.max_pods)
    workers = pods.workers
    pleg = PodEvents(runtime, pods.changed, pods.seen)
    stats = StatsCollector(node)

    server = await grpc_server.serve(
        config,
        lambda s: kubelet_pb2_grpc.add_KubeletServicer_to_server(KubeletService(node, pods, stats), s),
        service_names=[SERVICE_NAME],
        health=ctx.health,
    )
    ctx.on_stop(server.stop)
    https_port = 10250
    if config.http_address:
        https = await http_server.serve(config, ctx.health)
        ctx.on_stop(https.stop)
        https_port = https.port

    status = NodeStatus(
        config, client, runtime, name=name, ips=ips, https_port=https_port,
        grpc_address=config.advertise_grpc or f"{ips[0]}:{server.port}",
        runtime_healthy=lambda: pleg.healthy or not node.allocatable,
    )  # fmt: skip
    node.allocatable = status.allocatable
    ctx.health.add_ready("node", lambda: None if status.ready else "the node is not ready")

    services: Informer = Informer(client, kinds.SERVICE)
    node.services = lambda: services.lister.list()
    node.wait_services = services.synced.wait
    node_informer: Informer = Informer(client, kinds.NODE, field_selector=f"metadata.name={name}")
    node_informer.add_handler(status.node_changed)
    pod_informer: Informer = Informer(client, kinds.POD, field_selector=f"spec.nodeName={name}")
    heartbeats = Heartbeats(client, config.lease_seconds)
    heartbeats.add(name)

    for what, run in (
        ("events", events.run), ("statuses", statuses.run), ("services", services.run),
        ("node", node_informer.run), ("pods", pod_informer.run), ("node status", status.run),
        ("lease", heartbeats.run),
    ):  # fmt: skip
        tasks.create_task(run(), name=what)
    existing = await wait_runtime(runtime)
    pod_cgroups.set_up_node()
    await pod_informer.synced.wait()
    pods.follow(pod_informer)
    await pods.start(existing)
    await pods.clean_leftovers()
    tasks.create_task(pleg.run(), name="pod events")
    log.info("kubelet runs", node=name, pods=len(pods.workers))


def _prepare_root(root: Path) -> None:
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        (root / "pods").mkdir(mode=0o750, exist_ok=True)
    except OSError as error:
        raise Fatal(f"root_dir {root}: {error.strerror}") from error
    if os.geteuid() != 0:
        raise Fatal("must run as root: mounts, cgroups and namespaces of pods need it")


async def wait_runtime(runtime: Runtime) -> dict[str, PodRuntime]:
    """What the runtime has, as soon as it answers."""
    told = False
    while True:
        try:
            return await runtime.list_summary()
        except RuntimeFailure as error:
            if not told:
                log.warning("waiting for the container runtime", error=error.message)
                told = True
            await asyncio.sleep(_RUNTIME_WAIT_SECONDS)


def main(config: KubeletConfig) -> None:
    """Run the process."""
    process.run(serve, config)
