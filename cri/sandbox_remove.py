"""RemovePodSandbox: stops what runs, then forgets it. Idempotent."""

import asyncio
import shutil

from cri_api.v1 import api_pb2 as cri

from cri import container_remove, orphans, sandbox_stop, status
from cri.runtime import Runtime


async def remove_pod_sandbox(runtime: Runtime, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
    sandbox = runtime.store.sandboxes.find(request.pod_sandbox_id)
    if sandbox is None:
        return cri.RemovePodSandboxResponse()
    await sandbox_stop.stop(runtime, sandbox)
    containers = runtime.store.containers_of(sandbox.id)
    for container in containers:
        await container_remove.remove(runtime, container)
    if sandbox.interrupted:
        for container in containers:
            await asyncio.to_thread(orphans.end, container.id, runtime.config, shim_too=True)
    await asyncio.to_thread(shutil.rmtree, sandbox.root, True)
    runtime.store.sandboxes.remove(sandbox.id)
    status.publish(runtime, cri.CONTAINER_DELETED_EVENT, sandbox)
    return cri.RemovePodSandboxResponse()
