"""What every type of volume gets to work with, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightkube.models import core_v1

from services.kubelet.environment import NodeFacts


class VolumeError(Exception):
    """A volume can't be provided, now or ever; the words go into the pod's event."""


@dataclass(frozen=True, slots=True)
class VolumePath:
    """Where a volume is on this node. A block volume is a device node instead of a directory."""

    path: str
    read_only: bool = False
    is_device: bool = False
    # The image reference of an image volume, which the runtime itself mounts.
    image: str = ""


@dataclass(slots=True)
class VolumeContext:
    """One pod's volumes: where they are and whom to ask."""

    pod: core_v1.Pod
    directory: Path  # <root>/pods/<uid>/volumes
    objects: Any  # services.kubelet.objects.Objects
    node: Callable[[], NodeFacts]
    namespace: str = field(init=False)
    uid: str = field(init=False)

    def __post_init__(self) -> None:
        self.namespace = self.pod.metadata.namespace or ""
        self.uid = self.pod.metadata.uid or ""

    @property
    def fs_group(self) -> int | None:
        security = self.pod.spec.securityContext
        return security.fsGroup if security else None

    def volume_dir(self, plugin: str, name: str) -> Path:
        """`kubernetes.io~TYPE/NAME`, upstream's layout; made if it is not there."""
        path = self.directory / f"kubernetes.io~{plugin}" / name
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        return path
