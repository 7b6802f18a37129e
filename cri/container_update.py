"""UpdateContainerResources: the running task's cgroup, and the spec that a start would use."""

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import containerd_api as api
from cri import node_facts
from cri.containerd_client import RESOURCES_TYPE, SPEC_TYPE
from cri.errors import FailedPrecondition
from cri.oci_resources import linux_resources, merged
from cri.runtime import Runtime


async def update_container_resources(
    runtime: Runtime, request: cri.UpdateContainerResourcesRequest
) -> cri.UpdateContainerResourcesResponse:
    container = runtime.store.containers.get(request.container_id)
    async with container.lock:
        if container.state == cri.CONTAINER_EXITED or container.removing:
            raise FailedPrecondition(f"container {container.id} has ended: its resources can't be updated")
        swap = node_facts.facts().swap_accounting
        wanted = merged(container.resources, request.linux)
        if container.state == cri.CONTAINER_RUNNING:
            change = linux_resources(wanted, swap_accounting=swap)
            resources = api.well_known.Any(type_url=RESOURCES_TYPE, value=msgspec.json.encode(change))
            update = api.tasks.UpdateTaskRequest(container_id=container.id, resources=resources)
            await runtime.containerd.tasks.Update(update)
        else:
            await _update_spec(runtime, container.id, linux_resources(wanted, swap_accounting=swap))
        container.status.resources = wanted.SerializeToString()
        container.save()
    return cri.UpdateContainerResourcesResponse()


async def _update_spec(runtime: Runtime, container_id: str, resources: dict[str, object]) -> None:
    ctd = runtime.containerd
    item = (await ctd.containers.Get(api.containers.GetContainerRequest(id=container_id))).container
    spec = msgspec.json.decode(item.spec.value)
    spec["linux"]["resources"] = {**resources, "devices": spec["linux"]["resources"].get("devices", [])}
    item.spec.CopyFrom(api.well_known.Any(type_url=SPEC_TYPE, value=msgspec.json.encode(spec)))
    mask = api.well_known.FieldMask(paths=["spec"])
    await ctd.containers.Update(api.containers.UpdateContainerRequest(container=item, update_mask=mask))
