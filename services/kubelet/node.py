"""What every part of one kubelet shares: the node's facts and the parts themselves. Nothing happens here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightkube.models import core_v1

from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from services.kubelet.cgroups import Cgroups
from services.kubelet.container_config import NodeSettings
from services.kubelet.devices.claims import DeviceClaims
from services.kubelet.environment import NodeFacts
from services.kubelet.handlers import Handlers
from services.kubelet.images import Images
from services.kubelet.objects import Objects
from services.kubelet.runtime import Runtime
from services.kubelet.status_manager import StatusManager
from services.kubelet.user_ids import UserIds
from services.kubelet.volumes.manager import Volumes


@dataclass(slots=True)
class Node:
    """One node and the parts of its kubelet."""

    name: str
    root: Path
    settings: NodeSettings
    client: ApiClient
    runtime: Runtime
    cgroups: Cgroups
    objects: Objects
    volumes: Volumes
    images: Images
    handlers: Handlers
    statuses: StatusManager
    events: EventRecorder
    tasks: asyncio.TaskGroup
    ips: tuple[str, ...] = ()
    # Ids for pods with users of their own; None where pods have no processes.
    user_ids: UserIds | None = None
    allocatable: dict[str, str] = field(default_factory=dict)
    services: Callable[[], Iterable[core_v1.Service]] = lambda: ()
    wait_services: Callable[[], object] | None = None
    # Claims to devices; a hollow node has none.
    devices: DeviceClaims | None = None
    # The pods that hold resources of this node.
    active_pods: Callable[[], Iterable[core_v1.Pod]] = lambda: ()
    # The Node object's labels; None while it is not known.
    labels: Callable[[], Mapping[str, str] | None] = lambda: None
    clock: Callable[[], float] = time.time
    # How long a ready pod goes on serving after its deletion began.
    endpoint_drain_seconds: float = 0.0
    # Whether files and mounts of pods are real. A hollow node has none.
    real_files: bool = True

    def facts(self, pod_ips: tuple[str, ...] = ()) -> NodeFacts:
        return NodeFacts(self.name, self.ips, pod_ips, self.allocatable)

    def node_event(self, kind: str, reason: str, message: str) -> None:
        """Record an event about this node."""
        self.events.record(
            {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.name}, kind, reason, message
        )

    def event(self, pod: core_v1.Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        """Record an event about a pod or one of its containers. A static pod's are told of its mirror."""
        meta = pod.metadata
        reference = {
            "apiVersion": "v1", "kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
            "resourceVersion": meta.resourceVersion,
        }  # fmt: skip
        if container:
            reference["fieldPath"] = _field_path(pod, container)
        self.events.record(reference, kind, reason, message)


def _field_path(pod: core_v1.Pod, container: str) -> str:
    if any(c.name == container for c in pod.spec.initContainers or ()):
        return f"spec.initContainers{{{container}}}"
    if any(c.name == container for c in pod.spec.ephemeralContainers or ()):
        return f"spec.ephemeralContainers{{{container}}}"
    return f"spec.containers{{{container}}}"
