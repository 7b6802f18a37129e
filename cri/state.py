"""What the runtime knows: sandboxes and containers, by id and by name.

                 StartContainer            exit event
    CREATED ───────────────────▶ RUNNING ─────────────▶ EXITED
       │                                                   ▲
       └──────────── start failed (exit code 128) ─────────┘

A sandbox is READY from the end of RunPodSandbox to StopPodSandbox, or until its namespaces are found gone.

Everything is in memory, and only the event loop's thread changes it. `records` holds what a restart needs;
`recovery` reads it back. A `Container`'s `lock` is held by whoever starts, removes or updates it, and by the
handler of its exit; `exited` is set once it has ended.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cri_api.v1 import api_pb2 as cri

from cri import id_maps, records
from cri.errors import AlreadyExists, InvalidArgument, NotFound
from cri.records import ContainerRecord, SandboxRecord, StatusRecord

if TYPE_CHECKING:
    from cri.container_io import ContainerIO


def new_id() -> str:
    return secrets.token_hex(32)


def now() -> int:
    return time.time_ns()


class Sandbox:
    """One pod's sandbox: its namespaces, network and directories."""

    def __init__(self, record: SandboxRecord, root: Path, state: Path) -> None:
        self.record = record
        self.id = record.id
        self.config = cri.PodSandboxConfig.FromString(record.config)
        self.ids = id_maps.of_pod(self.config.linux.security_context.namespace_options)
        self.root = root / "sandboxes" / record.id
        self.state = state / "sandboxes" / record.id
        self.lock = asyncio.Lock()
        # containerd runs one shim process a pod; two tasks must not race to start and to end it.
        self.shim_lock = asyncio.Lock()
        # A task's creation was cut off here: containerd's shim process may outlive the pod's last task.
        self.interrupted = False

    @property
    def name(self) -> str:
        return sandbox_name(self.config.metadata)

    @property
    def ready(self) -> bool:
        return self.record.ready

    @property
    def namespace_options(self) -> cri.NamespaceOption:
        options: cri.NamespaceOption = self.config.linux.security_context.namespace_options
        return options

    @property
    def netns(self) -> Path | None:
        """Where the pod's network namespace is pinned; None on the node's network."""
        return None if self.record.host_network else self.state / "net"

    def save(self) -> None:
        records.write(self.root / "record.json", records.encode(self.record))


class Container:
    """One container, from CreateContainer to RemoveContainer."""

    def __init__(self, container_id: str, record: ContainerRecord, status: StatusRecord, root: Path) -> None:
        self.id = container_id
        self.record = record
        self.status = status
        self.sandbox_id = record.sandbox_id
        self.config = cri.ContainerConfig.FromString(record.config)
        self.root = root / "containers" / container_id
        self.lock = asyncio.Lock()
        self.exited = asyncio.Event()
        if status.finished_at:
            self.exited.set()
        self.io: ContainerIO | None = None
        self.removing = False

    @property
    def state(self) -> "cri.ContainerState.ValueType":
        if self.status.finished_at:
            return cri.CONTAINER_EXITED
        return cri.CONTAINER_RUNNING if self.status.started_at else cri.CONTAINER_CREATED

    @property
    def resources(self) -> cri.LinuxContainerResources:
        resources: cri.LinuxContainerResources = self.config.linux.resources
        if self.status.resources:
            resources = cri.LinuxContainerResources.FromString(self.status.resources)
        return resources

    def save(self) -> None:
        records.write(self.root / "status.json", records.encode(self.status))


def sandbox_name(metadata: cri.PodSandboxMetadata) -> str:
    return f"{metadata.name}_{metadata.namespace}_{metadata.uid}_{metadata.attempt}"


def container_name(metadata: cri.ContainerMetadata, sandbox: cri.PodSandboxMetadata) -> str:
    return f"{metadata.name}_{sandbox.name}_{sandbox.namespace}_{sandbox.uid}_{metadata.attempt}"


class HasId(Protocol):
    id: str


T = TypeVar("T", bound=HasId)


class Index(Generic[T]):
    """Objects by id, found also by an unambiguous beginning of the id, and names that only one may hold."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._objects: dict[str, T] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def reserve(self, name: str, object_id: str) -> None:
        """Takes a name before the object exists; raises AlreadyExists naming the holder."""
        holder = self._names.setdefault(name, object_id)
        if holder != object_id:
            raise AlreadyExists(f"the {self._noun} name {name!r} is reserved for {holder}")

    def release(self, object_id: str) -> None:
        for name in [name for name, holder in self._names.items() if holder == object_id]:
            del self._names[name]

    def add(self, item: T) -> None:
        self._objects[item.id] = item

    def get(self, object_id: str) -> T:
        item = self.find(object_id)
        if item is None:
            raise NotFound(f"{self._noun} {object_id!r} is not known")
        return item

    def find(self, object_id: str) -> T | None:
        if not object_id:
            return None
        if object_id in self._objects:
            return self._objects[object_id]
        matches = [item for key, item in self._objects.items() if key.startswith(object_id)]
        if len(matches) > 1:
            raise InvalidArgument(f"{self._noun} id {object_id!r} is ambiguous: {len(matches)} begin with it")
        return matches[0] if matches else None

    def remove(self, object_id: str) -> None:
        self._objects.pop(object_id, None)
        self.release(object_id)


class Store:
    """Every sandbox and container of this runtime."""

    def __init__(self) -> None:
        self.sandboxes: Index[Sandbox] = Index("sandbox")
        self.containers: Index[Container] = Index("container")

    def containers_of(self, sandbox_id: str) -> list[Container]:
        return [container for container in self.containers if container.sandbox_id == sandbox_id]


def labels_match(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
