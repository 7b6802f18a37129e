"""PodSandboxStatus and ListPodSandbox."""

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import status
from cri.runtime import Runtime
from cri.state import Sandbox, labels_match, now


def pod_sandbox_status(runtime: Runtime, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
    sandbox = runtime.store.sandboxes.get(request.pod_sandbox_id)
    containers = runtime.store.containers_of(sandbox.id)
    response = cri.PodSandboxStatusResponse(
        status=status.sandbox_status(sandbox),
        containers_statuses=[status.container_status(container) for container in containers],
        timestamp=now(),
    )
    if request.verbose:
        # As containerd's plugin tells it: kubelets find the pod's network there, to forward ports into it.
        network = {"type": "network", "path": str(sandbox.netns)} if sandbox.netns else {"type": "network"}
        info = {
            "pid": sandbox.record.init_pid,
            "ips": sandbox.record.ips,
            "runtimeSpec": {"linux": {"namespaces": [network]}},
        }
        response.info["info"] = msgspec.json.encode(info).decode()
    return response


def list_pod_sandbox(runtime: Runtime, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
    wanted = request.filter
    if wanted.id:
        found = runtime.store.sandboxes.find(wanted.id)
        candidates = [found] if found else []
    else:
        candidates = list(runtime.store.sandboxes)
    return cri.ListPodSandboxResponse(items=[_item(sandbox) for sandbox in candidates if _matches(sandbox, wanted)])


def _matches(sandbox: Sandbox, wanted: cri.PodSandboxFilter) -> bool:
    if wanted.HasField("state") and wanted.state.state != status.sandbox_state(sandbox):
        return False
    return labels_match(wanted.label_selector, sandbox.config.labels)


def _item(sandbox: Sandbox) -> cri.PodSandbox:
    return cri.PodSandbox(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=status.sandbox_state(sandbox),
        created_at=sandbox.record.created_at,
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.record.runtime_handler,
    )
