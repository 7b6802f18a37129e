"""Pods and runtime states for the tests of this folder."""

from __future__ import annotations

from typing import Any

import msgspec
from lightkube.models import core_v1

from services.kubelet.pod_spec import spec_hash
from services.kubelet.runtime_state import (
    ContainerRecord,
    PodRuntime,
    SandboxRecord,
    State,
    order_containers,
    order_sandboxes,
)

SECOND = 1_000_000_000


def pod(*containers: dict[str, Any], status: dict[str, Any] | None = None, **spec: Any) -> core_v1.Pod:
    """A pod of these containers; one called `c` if none is given."""
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1, "labels": {"app": "x"}},
        "spec": {"containers": list(containers) or [{"name": "c", "image": "i"}], **spec},
        "status": status or {},
    }
    return msgspec.convert(body, core_v1.Pod)


def running(
    name: str = "c", number: int = 0, *, sandbox: str = "s0", image: str = "i", at: int = 100
) -> ContainerRecord:
    """A run that is going on."""
    return ContainerRecord(
        id=f"{name}{number}", name=name, sandbox_id=sandbox, state=State.RUNNING, created_at=at * SECOND,
        started_at=at * SECOND, restart_count=number, image=image, image_ref="sha256:1",
        spec_hash=spec_hash(core_v1.Container(name=name, image=image)),
    )  # fmt: skip


def exited(
    name: str = "c", number: int = 0, *, code: int = 0, sandbox: str = "s0", at: int = 100, image: str = "i"
) -> ContainerRecord:
    """A run that ended ten seconds after it began."""
    return ContainerRecord(
        id=f"{name}{number}", name=name, sandbox_id=sandbox, state=State.EXITED, created_at=at * SECOND,
        started_at=at * SECOND, finished_at=(at + 10) * SECOND, exit_code=code, restart_count=number, image=image,
        image_ref="sha256:1", reason="Completed" if code == 0 else "Error",
        spec_hash=spec_hash(core_v1.Container(name=name, image=image)),
    )  # fmt: skip


def state(*containers: ContainerRecord, ready: bool = True, attempt: int = 0, **more: Any) -> PodRuntime:
    """A runtime state with one sandbox, `s<attempt>`."""
    sandbox = SandboxRecord(f"s{attempt}", attempt, ready, 1, ("10.0.0.1",) if ready else (), **more)
    return PodRuntime("u1", "ns", "p", order_sandboxes([sandbox]), order_containers(list(containers)))


NOTHING = PodRuntime("u1")
