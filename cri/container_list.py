"""ContainerStatus and ListContainers."""

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri import status
from cri.runtime import Runtime
from cri.state import Container, labels_match


async def container_status(runtime: Runtime, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
    container = runtime.store.containers.get(request.container_id)
    response = cri.ContainerStatusResponse(status=status.container_status(container))
    if request.verbose:
        answer = await runtime.containerd.containers.Get(api.containers.GetContainerRequest(id=container.id))
        info = {
            "sandboxID": container.sandbox_id,
            "pid": container.status.pid,
            "removing": container.removing,
            "snapshotKey": answer.container.snapshot_key,
            "snapshotter": answer.container.snapshotter,
            "runtimeType": answer.container.runtime.name,
            "runtimeSpec": msgspec.Raw(answer.container.spec.value),
        }
        response.info["info"] = msgspec.json.encode(info).decode()
    return response


def list_containers(runtime: Runtime, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
    wanted = request.filter
    if wanted.id:
        found = runtime.store.containers.find(wanted.id)
        candidates = [found] if found else []
    else:
        candidates = list(runtime.store.containers)
    sandbox_id = wanted.pod_sandbox_id
    if sandbox_id:
        sandbox = runtime.store.sandboxes.find(sandbox_id)
        sandbox_id = sandbox.id if sandbox else sandbox_id
    items = [_item(c) for c in candidates if _matches(c, wanted, sandbox_id)]
    return cri.ListContainersResponse(containers=items)


def _matches(container: Container, wanted: cri.ContainerFilter, sandbox_id: str) -> bool:
    if wanted.HasField("state") and wanted.state.state != container.state:
        return False
    if sandbox_id and container.sandbox_id != sandbox_id:
        return False
    return labels_match(wanted.label_selector, container.config.labels)


def _item(container: Container) -> cri.Container:
    config = container.config
    return cri.Container(
        id=container.id,
        pod_sandbox_id=container.sandbox_id,
        metadata=config.metadata,
        image=config.image,
        image_ref=container.record.image_ref,
        image_id=container.record.image_id,
        state=container.state,
        created_at=container.record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )
