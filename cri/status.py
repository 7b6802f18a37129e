"""Sandboxes and containers in the CRI's words: for status and list answers, and for events."""

from cri_api.v1 import api_pb2 as cri

from cri.runtime import Runtime
from cri.state import Container, Sandbox, now


def sandbox_state(sandbox: Sandbox) -> "cri.PodSandboxState.ValueType":
    return cri.SANDBOX_READY if sandbox.ready else cri.SANDBOX_NOTREADY


def sandbox_status(sandbox: Sandbox) -> cri.PodSandboxStatus:
    config = sandbox.config
    status = cri.PodSandboxStatus(
        id=sandbox.id,
        metadata=config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=sandbox.record.runtime_handler,
    )
    status.linux.namespaces.options.CopyFrom(sandbox.namespace_options)
    status.network.SetInParent()
    if sandbox.ready and sandbox.record.ips:
        first, *others = sandbox.record.ips
        status.network.ip = first
        status.network.additional_ips.extend(cri.PodIP(ip=ip) for ip in others)
    return status


def container_status(container: Container) -> cri.ContainerStatus:
    config, record, state = container.config, container.record, container.status
    status = cri.ContainerStatus(
        id=container.id,
        metadata=config.metadata,
        state=container.state,
        created_at=record.created_at,
        started_at=state.started_at,
        finished_at=state.finished_at,
        exit_code=state.exit_code,
        reason=state.reason,
        message=state.message,
        image=config.image,
        image_ref=record.image_ref,
        image_id=record.image_id,
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=record.log_path,
    )
    status.resources.linux.CopyFrom(container.resources)
    status.user.linux.uid = record.uid
    status.user.linux.gid = record.gid
    status.user.linux.supplemental_groups.extend(record.groups)
    if record.stop_signal:
        number = _signal_enum(record.stop_signal)
        if number is not None:
            status.stop_signal = number
    return status


def _signal_enum(name: str) -> "cri.Signal.ValueType | None":
    normal = name.replace("+", "PLUS").replace("-", "MINUS")
    return cri.Signal.Value(normal) if normal in cri.Signal.keys() else None  # noqa: SIM118 — an enum wrapper, not a dict


def publish(
    runtime: Runtime,
    kind: "cri.ContainerEventType.ValueType",
    sandbox: Sandbox | None,
    container: Container | None = None,
) -> None:
    """Tells subscribers of a change of a sandbox, or of one of its containers."""
    if not runtime.events.watched:
        return
    subject = container or sandbox
    if subject is None:
        return
    event = cri.ContainerEventResponse(container_id=subject.id, container_event_type=kind, created_at=now())
    if sandbox is not None:
        event.pod_sandbox_status.CopyFrom(sandbox_status(sandbox))
        event.containers_statuses.extend(container_status(c) for c in runtime.store.containers_of(sandbox.id))
    runtime.events.publish(event)
