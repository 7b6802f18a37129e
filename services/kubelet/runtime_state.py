"""What the container runtime has of a pod, as plain immutable records.

Pure: filled in by `runtime.py`, read by plan and status.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace


class State(enum.Enum):
    """A container's state as CRI tells it."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One run of one container. Times are nanoseconds since 1970, 0 where it has not happened."""

    id: str
    name: str
    sandbox_id: str
    state: State
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    restart_count: int = 0
    spec_hash: str = ""
    log_path: str = ""
    user: tuple[int, int, tuple[int, ...]] | None = None

    @property
    def running(self) -> bool:
        return self.state is State.RUNNING


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One sandbox of a pod: the namespaces and the address that its containers share."""

    id: str
    attempt: int
    ready: bool
    created_at: int = 0
    ips: tuple[str, ...] = ()
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class PodRuntime:
    """All of a pod that the runtime has. Both tuples are newest first."""

    uid: str
    namespace: str = ""
    name: str = ""
    sandboxes: tuple[SandboxRecord, ...] = ()
    containers: tuple[ContainerRecord, ...] = ()
    # True when the runtime was asked and answered; a worker never acts on what it has not observed.
    observed: bool = field(default=True, compare=False)
    # When this was so, nanoseconds since 1970: all that happened before is in it.
    at: int = field(default=0, compare=False)

    @property
    def ready_sandbox(self) -> SandboxRecord | None:
        """The newest sandbox, if it is ready."""
        return self.sandboxes[0] if self.sandboxes and self.sandboxes[0].ready else None

    @property
    def running(self) -> tuple[ContainerRecord, ...]:
        return tuple(c for c in self.containers if c.state in (State.RUNNING, State.UNKNOWN))

    @property
    def ips(self) -> tuple[str, ...]:
        sandbox = self.ready_sandbox
        return sandbox.ips if sandbox else ()

    def runs_of(self, name: str, sandbox_id: str | None = None) -> tuple[ContainerRecord, ...]:
        """The runs of a container, newest first; only those within one sandbox if it is given."""
        return tuple(
            c for c in self.containers if c.name == name and (sandbox_id is None or c.sandbox_id == sandbox_id)
        )

    def latest(self, name: str, sandbox_id: str | None = None) -> ContainerRecord | None:
        """The newest run of a container."""
        return next(iter(self.runs_of(name, sandbox_id)), None)

    def with_container(self, record: ContainerRecord) -> PodRuntime:
        """The same with one container's record put in or replaced."""
        others = [c for c in self.containers if c.id != record.id]
        return replace(self, containers=order_containers([record, *others]))


def order_containers(records: list[ContainerRecord]) -> tuple[ContainerRecord, ...]:
    """Newest first. The restart count decides, for two runs can share a creation time on a coarse clock."""
    return tuple(sorted(records, key=lambda c: (c.created_at, c.restart_count), reverse=True))


def order_sandboxes(records: list[SandboxRecord]) -> tuple[SandboxRecord, ...]:
    """Newest first."""
    return tuple(sorted(records, key=lambda s: (s.created_at, s.attempt), reverse=True))
