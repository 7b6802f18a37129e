"""RemoveContainer: ends it if it runs, then deletes its containerd object, its snapshot and its files. Idempotent."""

import asyncio
import contextlib
import shutil

from cri_api.v1 import api_pb2 as cri

from cri import container_exit, container_stop, status
from cri import containerd_api as api
from cri.errors import NotFound
from cri.idmapped import Stage
from cri.images import volumes
from cri.runtime import Runtime
from cri.state import Container


async def remove_container(runtime: Runtime, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
    container = runtime.store.containers.find(request.container_id)
    if container is not None:
        await remove(runtime, container)
    return cri.RemoveContainerResponse()


async def remove(runtime: Runtime, container: Container) -> None:
    await container_stop.stop(runtime, container, 0)
    async with container.lock:
        if runtime.store.containers.find(container.id) is None:
            return
        container.removing = True
        await container_exit.delete_task(runtime, container)
        if container.io:
            container.io.remove()
            container.io = None
        await volumes.release(runtime, container.id)
        with contextlib.suppress(NotFound):
            await runtime.containerd.containers.Delete(api.containers.DeleteContainerRequest(id=container.id))
        await remove_snapshot(runtime, container.id)
        await asyncio.to_thread(shutil.rmtree, container.root, True)
        await asyncio.to_thread(Stage(runtime.stages / container.id).remove)
        runtime.store.containers.remove(container.id)
    status.publish(runtime, cri.CONTAINER_DELETED_EVENT, runtime.store.sandboxes.find(container.sandbox_id), container)


async def remove_snapshot(runtime: Runtime, key: str) -> None:
    request = api.snapshots.RemoveSnapshotRequest(snapshotter=runtime.config.snapshotter, key=key)
    with contextlib.suppress(NotFound):
        await runtime.containerd.snapshots.Remove(request)
