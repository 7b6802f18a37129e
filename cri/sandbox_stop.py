"""StopPodSandbox: ends the containers, then gives back network and namespaces. Idempotent."""

import asyncio

from cri_api.v1 import api_pb2 as cri

from cri import container_stop, kernel, namespaces, pause, status
from cri.runtime import Runtime
from cri.state import Sandbox


async def stop_pod_sandbox(runtime: Runtime, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
    sandbox = runtime.store.sandboxes.find(request.pod_sandbox_id)
    if sandbox is not None:
        await stop(runtime, sandbox)
    return cri.StopPodSandboxResponse()


async def stop(runtime: Runtime, sandbox: Sandbox) -> None:
    containers = runtime.store.containers_of(sandbox.id)
    await asyncio.gather(*(container_stop.stop(runtime, container, 0) for container in containers))
    async with sandbox.lock:
        was_ready = sandbox.ready
        await release(runtime, sandbox)
        if was_ready or sandbox.record.init_pid:
            sandbox.record.ready = False
            sandbox.record.init_pid = 0
            sandbox.save()
    if was_ready:
        status.publish(runtime, cri.CONTAINER_STOPPED_EVENT, sandbox)


async def release(runtime: Runtime, sandbox: Sandbox) -> None:
    """Everything of a sandbox but its record: init process, network, namespaces, shared memory. Idempotent."""
    if sandbox.namespace_options.pid == cri.POD:
        await pause.stop(runtime, sandbox)
    await runtime.cni.delete(sandbox.id, sandbox.root / "cni.json")
    await asyncio.to_thread(_unmount, sandbox)


def _unmount(sandbox: Sandbox) -> None:
    if not sandbox.state.exists():
        return
    namespaces.remove(sandbox.state)
    shm = sandbox.state / "shm"
    if shm.exists():
        kernel.unmount(str(shm))
        shm.rmdir()
    sandbox.state.rmdir()
