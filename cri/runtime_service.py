"""runtime.v1.RuntimeService: each RPC in one line, which names its file."""

from collections.abc import AsyncIterator

from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from cri import (
    container_create,
    container_list,
    container_remove,
    container_start,
    container_stop,
    container_update,
    exec_sync,
    metrics,
    node_status,
    sandbox_list,
    sandbox_remove,
    sandbox_run,
    sandbox_stop,
    stats,
)
from cri.errors import FailedPrecondition, Unimplemented
from cri.logs import log
from cri.runtime import Runtime
from cri.streaming import requests


class RuntimeService(api_pb2_grpc.RuntimeServiceServicer):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def Version(self, request: cri.VersionRequest, context: object) -> cri.VersionResponse:
        return await node_status.version(self._runtime)

    async def Status(self, request: cri.StatusRequest, context: object) -> cri.StatusResponse:
        return await node_status.status(self._runtime, verbose=request.verbose)

    async def RuntimeConfig(self, request: cri.RuntimeConfigRequest, context: object) -> cri.RuntimeConfigResponse:
        return node_status.runtime_config(self._runtime)

    async def UpdateRuntimeConfig(
        self, request: cri.UpdateRuntimeConfigRequest, context: object
    ) -> cri.UpdateRuntimeConfigResponse:
        cidr = request.runtime_config.network_config.pod_cidr
        log.info("pod CIDR announced", cidr=cidr)
        self._runtime.cni.write_network(cidr)
        return cri.UpdateRuntimeConfigResponse()

    async def RunPodSandbox(self, request: cri.RunPodSandboxRequest, context: object) -> cri.RunPodSandboxResponse:
        return await sandbox_run.run_pod_sandbox(self._runtime, request)

    async def StopPodSandbox(self, request: cri.StopPodSandboxRequest, context: object) -> cri.StopPodSandboxResponse:
        return await sandbox_stop.stop_pod_sandbox(self._runtime, request)

    async def RemovePodSandbox(
        self, request: cri.RemovePodSandboxRequest, context: object
    ) -> cri.RemovePodSandboxResponse:
        return await sandbox_remove.remove_pod_sandbox(self._runtime, request)

    async def PodSandboxStatus(
        self, request: cri.PodSandboxStatusRequest, context: object
    ) -> cri.PodSandboxStatusResponse:
        return sandbox_list.pod_sandbox_status(self._runtime, request)

    async def ListPodSandbox(self, request: cri.ListPodSandboxRequest, context: object) -> cri.ListPodSandboxResponse:
        return sandbox_list.list_pod_sandbox(self._runtime, request)

    async def CreateContainer(
        self, request: cri.CreateContainerRequest, context: object
    ) -> cri.CreateContainerResponse:
        return await container_create.create_container(self._runtime, request)

    async def StartContainer(self, request: cri.StartContainerRequest, context: object) -> cri.StartContainerResponse:
        return await container_start.start_container(self._runtime, request)

    async def StopContainer(self, request: cri.StopContainerRequest, context: object) -> cri.StopContainerResponse:
        return await container_stop.stop_container(self._runtime, request)

    async def RemoveContainer(
        self, request: cri.RemoveContainerRequest, context: object
    ) -> cri.RemoveContainerResponse:
        return await container_remove.remove_container(self._runtime, request)

    async def ListContainers(self, request: cri.ListContainersRequest, context: object) -> cri.ListContainersResponse:
        return container_list.list_containers(self._runtime, request)

    async def ContainerStatus(
        self, request: cri.ContainerStatusRequest, context: object
    ) -> cri.ContainerStatusResponse:
        return await container_list.container_status(self._runtime, request)

    async def UpdateContainerResources(
        self, request: cri.UpdateContainerResourcesRequest, context: object
    ) -> cri.UpdateContainerResourcesResponse:
        return await container_update.update_container_resources(self._runtime, request)

    async def UpdatePodSandboxResources(
        self, request: cri.UpdatePodSandboxResourcesRequest, context: object
    ) -> cri.UpdatePodSandboxResourcesResponse:
        # The pod's cgroup is the kubelet's; a sandbox of ours has no resources beyond it.
        self._runtime.store.sandboxes.get(request.pod_sandbox_id)
        return cri.UpdatePodSandboxResourcesResponse()

    async def ReopenContainerLog(
        self, request: cri.ReopenContainerLogRequest, context: object
    ) -> cri.ReopenContainerLogResponse:
        container = self._runtime.store.containers.get(request.container_id)
        if container.state != cri.CONTAINER_RUNNING:
            raise FailedPrecondition(f"container {container.id} is not running")
        if container.io and container.io.log:
            container.io.log.reopen()
        return cri.ReopenContainerLogResponse()

    async def ExecSync(self, request: cri.ExecSyncRequest, context: object) -> cri.ExecSyncResponse:
        return await exec_sync.exec_sync(self._runtime, request)

    async def Exec(self, request: cri.ExecRequest, context: object) -> cri.ExecResponse:
        return requests.exec_url(self._runtime, request)

    async def Attach(self, request: cri.AttachRequest, context: object) -> cri.AttachResponse:
        return requests.attach_url(self._runtime, request)

    async def PortForward(self, request: cri.PortForwardRequest, context: object) -> cri.PortForwardResponse:
        return requests.port_forward_url(self._runtime, request)

    async def ContainerStats(self, request: cri.ContainerStatsRequest, context: object) -> cri.ContainerStatsResponse:
        return await stats.container_stats(self._runtime, request)

    async def ListContainerStats(
        self, request: cri.ListContainerStatsRequest, context: object
    ) -> cri.ListContainerStatsResponse:
        return await stats.list_container_stats(self._runtime, request)

    async def PodSandboxStats(
        self, request: cri.PodSandboxStatsRequest, context: object
    ) -> cri.PodSandboxStatsResponse:
        return await stats.pod_sandbox_stats(self._runtime, request)

    async def ListPodSandboxStats(
        self, request: cri.ListPodSandboxStatsRequest, context: object
    ) -> cri.ListPodSandboxStatsResponse:
        return await stats.list_pod_sandbox_stats(self._runtime, request)

    async def ListMetricDescriptors(
        self, request: cri.ListMetricDescriptorsRequest, context: object
    ) -> cri.ListMetricDescriptorsResponse:
        return cri.ListMetricDescriptorsResponse(descriptors=metrics.descriptors())

    async def ListPodSandboxMetrics(
        self, request: cri.ListPodSandboxMetricsRequest, context: object
    ) -> cri.ListPodSandboxMetricsResponse:
        return await metrics.list_pod_sandbox_metrics(self._runtime)

    async def CheckpointContainer(
        self, request: cri.CheckpointContainerRequest, context: object
    ) -> cri.CheckpointContainerResponse:
        raise Unimplemented("CheckpointContainer: this runtime makes no checkpoints")

    async def GetContainerEvents(
        self, request: cri.GetEventsRequest, context: object
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        async for event in self._runtime.events.subscribe():
            yield event
