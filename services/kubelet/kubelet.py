"""One kubelet put together: the parts in the order in which they depend on each other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

from lightkube.models import core_v1

from machinery.api import kinds
from machinery.api.quantity import parse_quantity
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.informer import Informer
from machinery.component import grpc_server, logs, process
from machinery.component.process import Context, Fatal
from protos.cutaway.v1 import kubelet_pb2_grpc
from services.kubelet import cgroups, credential_providers, node_info, user_ids
from services.kubelet.access import Access
from services.kubelet.config import KubeletConfig
from services.kubelet.container_config import NodeSettings
from services.kubelet.credential_providers import CredentialProviders
from services.kubelet.devices.checkpoint import BadCheckpoint
from services.kubelet.devices.claims import DeviceClaims
from services.kubelet.evictor import Evictor
from services.kubelet.handlers import Handlers
from services.kubelet.heartbeat import Heartbeats
from services.kubelet.housekeeping import Housekeeping
from services.kubelet.http_api import HttpApi
from services.kubelet.images import Images
from services.kubelet.node import Node
from services.kubelet.node_status import NodeStatus, for_pods
from services.kubelet.objects import Objects
from services.kubelet.pod_events import PodEvents
from services.kubelet.pods import Pods
from services.kubelet.runtime import Runtime, RuntimeFailure
from services.kubelet.runtime_state import PodRuntime
from services.kubelet.service import SERVICE_NAME, KubeletService
from services.kubelet.shutdown import NodeShutdown
from services.kubelet.static_pods import StaticPods
from services.kubelet.stats import StatsCollector
from services.kubelet.status_manager import StatusManager
from services.kubelet.user_ids import UserIds
from services.kubelet.volumes.manager import Volumes

log = logs.get("kubelet")
_RUNTIME_WAIT_SECONDS = 0.1


def node_settings(config: KubeletConfig, name: str) -> NodeSettings:
    """What the node contributes to its pods' configuration."""
    return NodeSettings(
        node_name=name,
        log_root=config.pod_logs_dir or f"{config.root_dir}/logs",
        cluster_domain=config.cluster_domain,
        cluster_dns=tuple(config.cluster_dns),
        host_dns=node_info.resolver(config.resolv_conf),
        node_memory_bytes=node_info.memory_bytes(),
        cgroup_v2=cgroups.is_v2(),
        swap_controller=cgroups.has_swap_controller(),
        seccomp_default=config.seccomp_default,
        seccomp_root=str(Path(config.root_dir) / "seccomp"),
    )


def _user_ids(config: KubeletConfig, root: Path) -> UserIds:
    try:
        return UserIds(root / "pods", user_ids.of_node(config.user_ids_first, config.max_pods))
    except ValueError as error:
        raise Fatal(str(error)) from error


def _credential_providers(config: KubeletConfig, client: ApiClient, objects: Objects) -> CredentialProviders | None:
    path, directory = config.image_credential_provider_config, config.image_credential_provider_bin_dir
    if not path:
        return None
    try:
        providers = credential_providers.parse_config(Path(path).read_text(encoding="utf-8"), directory, path)
    except (OSError, ValueError) as error:
        raise Fatal(f"image_credential_provider_config: {error}") from error

    async def account_of(pod: core_v1.Pod, audience: str) -> credential_providers.Account:
        namespace, name = pod.metadata.namespace or "", pod.spec.serviceAccountName or "default"
        found = await client.get(kinds.SERVICE_ACCOUNT, name, namespace)
        token = await objects.token(pod, audience, None)
        annotations = found.metadata.annotations or {}
        return credential_providers.Account(namespace, name, found.metadata.uid or "", annotations, token)

    return CredentialProviders(providers, directory, account_of)


class Kubelet:
    """A kubelet without its servers. `start` it within a TaskGroup; it lives as long as the group."""

    def __init__(self, config: KubeletConfig, client: ApiClient, tasks: asyncio.TaskGroup) -> None:
        self.config = config
        self.name = config.node_name or socket.gethostname().lower()
        self.ips = (config.node_ip or node_info.default_ip(),)
        self._client = client
        self._tasks = tasks
        root = Path(config.root_dir)
        self.runtime = Runtime(config.runtime_endpoint)
        objects = Objects(client, tasks, wake=self._wake)
        self.statuses = StatusManager(client)
        self.node = Node(
            name=self.name,
            root=root,
            settings=node_settings(config, self.name),
            client=client,
            runtime=self.runtime,
            cgroups=cgroups.Cgroups(
                config.cgroup_root, driver=config.cgroup_driver, pods_pids_limit=config.pod_pids_limit
            ),
            objects=objects,
            volumes=Volumes(root, objects),
            images=Images(self.runtime, objects, providers=_credential_providers(config, client, objects)),
            handlers=Handlers(self.runtime),
            statuses=self.statuses,
            events=EventRecorder(client, "kubelet", self.name),
            tasks=tasks,
            ips=self.ips,
            endpoint_drain_seconds=config.endpoint_drain_seconds,
            user_ids=_user_ids(config, root),
            devices=DeviceClaims(root, self.name, client),
        )
        self.node.volumes.recursive_read_only = lambda: self.runtime.recursive_read_only
        self.pods = Pods(self.node, config.max_pods, config.allowed_unsafe_sysctls)
        self.pleg = PodEvents(self.runtime, self.pods.changed, self.pods.seen)
        self.stats = StatsCollector(self.node)
        self.service = KubeletService(self.node, self.pods, self.stats)
        self.housekeeping = Housekeeping(config, self.node, self.pods)
        self.evictor = Evictor(config, self.node, self.pods, lambda: self.housekeeping.collect_images(all_unused=True))
        self.pods.pressures = self.evictor.pressed
        self.node_status: NodeStatus | None = None
        try:
            self.shutdown = NodeShutdown(config, self.node, self.pods, self._tell_status)
        except ValueError as error:
            raise Fatal(str(error)) from error

    def _tell_status(self) -> None:
        if self.node_status is not None:
            self.node_status.wake()

    def _wake(self, uid: str) -> None:
        worker = self.pods.workers.get(uid)
        if worker is not None:
            worker.wake()

    async def start(self, *, grpc_address: str, https_port: int) -> None:
        """Register the node, adopt what runs, follow what is wanted. Returns when pods are being handled."""
        config, client = self.config, self._client
        _prepare_root(self.node.root)
        if self.node.user_ids is not None:
            self.node.user_ids.load(self.node.volumes.known_pods())
        status = self.node_status = NodeStatus(
            config,
            client,
            self.runtime,
            name=self.name,
            ips=self.ips,
            https_port=https_port,
            grpc_address=grpc_address,
            pressures=self.evictor.pressures,
            shutdown=self.shutdown.problem,
            event=self.node.node_event,
        )
        self.node.allocatable = status.allocatable
        self.node.labels = lambda: status.labels
        self.node.node_event("Normal", "Starting", "Starting kubelet.")
        services: Informer[Any] = Informer(client, kinds.SERVICE)
        self.node.services = services.lister.list
        self.node.wait_services = services.synced.wait
        node_informer: Informer[Any] = Informer(client, kinds.NODE, field_selector=f"metadata.name={self.name}")
        node_informer.add_handler(status.node_changed)
        pod_informer: Informer[Any] = Informer(client, kinds.POD, field_selector=f"spec.nodeName={self.name}")
        heartbeats = Heartbeats(client, config.lease_seconds)
        heartbeats.add(self.name, lambda: status.uid)
        for what, run in (
            ("events", self.node.events.run),
            ("statuses", self.statuses.run),
            ("services", services.run),
            ("node", node_informer.run),
            ("pods", pod_informer.run),
            ("node status", status.run),
            ("lease", heartbeats.run),
            ("housekeeping", self.housekeeping.run),
            ("logind", self.shutdown.follow_logind),
        ):
            self._tasks.create_task(run(), name=what)
        devices = self.node.devices
        assert devices is not None
        try:
            devices.load()
        except BadCheckpoint as error:
            raise Fatal(str(error)) from error
        existing = await self._wait_runtime()
        self._set_up_cgroups(status.capacity)
        await pod_informer.synced.wait()
        if config.manifests_dir:
            self._start_static_pods(pod_informer)
        self.pods.follow(pod_informer)
        await self.pods.start(existing)
        await self.pods.clean_leftovers()
        self._tasks.create_task(devices.run(lambda: list(self.pods.workers)), name="device claims")
        self._tasks.create_task(self.pleg.run(), name="pod events")
        self._tasks.create_task(self.evictor.run(), name="eviction")
        log.info("kubelet runs", node=self.name, pods=len(self.pods.workers))

    def _set_up_cgroups(self, capacity: dict[str, str]) -> None:
        pods = for_pods(capacity, self.config)
        cpu, memory = parse_quantity(pods["cpu"]).milli_value, parse_quantity(pods["memory"]).value
        problem = self.node.cgroups.set_up_node(cpu, memory)
        if problem:
            message = f"Failed to update Node Allocatable Limits: {problem}"
            self.node.node_event("Warning", "FailedNodeAllocatableEnforcement", message)
        else:
            self.node.node_event("Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")

    def _start_static_pods(self, pod_informer: Informer[Any]) -> None:
        """Before the node's other pods.

        What the apiserver itself may run as must not wait for it, nor be taken for an orphan.
        """
        directory = Path(self.config.manifests_dir)
        directory.mkdir(parents=True, exist_ok=True)
        static = StaticPods(directory, self.name, self._client, self.pods, self.statuses)
        static.load()
        pod_informer.add_handler(static.on_change)
        self._tasks.create_task(static.run(), name="static pods")

    async def _wait_runtime(self) -> dict[str, PodRuntime]:
        """What the runtime has, as soon as it answers."""
        told = False
        while True:
            try:
                return await self.runtime.list_summary()
            except RuntimeFailure as error:
                if not told:
                    log.warning("waiting for the container runtime", error=error.message)
                    told = True
                await asyncio.sleep(_RUNTIME_WAIT_SECONDS)


def _prepare_root(root: Path) -> None:
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        (root / "pods").mkdir(mode=0o750, exist_ok=True)
    except OSError as error:
        raise Fatal(f"root_dir {root}: {error.strerror}") from error
    if os.geteuid() != 0:
        raise Fatal("must run as root: mounts, cgroups and namespaces of pods need it")


async def serve(ctx: Context[KubeletConfig]) -> None:
    """Start a kubelet and its servers; it lives until the process ends. Pods stay when it ends."""
    config = ctx.config
    _prepare_root(Path(config.root_dir))
    client = await ApiClient.connect(config.apiserver, config.tls, user_agent="kubelet")
    ctx.on_stop(client.close)
    kubelet = Kubelet(config, client, ctx.tasks)
    ctx.on_stop(kubelet.runtime.close)
    access = Access(client, kubelet.name)
    grpc_address = config.advertise_grpc
    if config.grpc_address:
        server = await grpc_server.serve(
            config,
            lambda s: kubelet_pb2_grpc.add_KubeletServicer_to_server(kubelet.service, s),
            service_names=[SERVICE_NAME],
            health=ctx.health,
            authorize=access.of_call,
        )
        ctx.on_stop(server.stop)
        grpc_address = grpc_address or f"{kubelet.ips[0]}:{server.port}"
    https_port = 10250
    if config.http_address:
        https = HttpApi(config, ctx.health, kubelet.node, kubelet.pods, kubelet.stats, kubelet.service, access)
        await https.start(config.http_address)
        ctx.on_stop(https.stop)
        https_port = https.port
    asyncio.get_running_loop().add_signal_handler(signal.SIGPWR, kubelet.shutdown.trigger)
    ctx.health.add_ready("node", lambda: _readiness(kubelet))
    await kubelet.start(grpc_address=grpc_address, https_port=https_port)


def _readiness(kubelet: Kubelet) -> str | None:
    ready = kubelet.node_status is not None and kubelet.node_status.ready
    return None if ready else "the node is not ready"


def main(config: KubeletConfig) -> None:
    """Run the process."""
    process.run(serve, config)
