"""The parts that every verb works with, in one place, made once by `server`."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cri.cni import Cni
from cri.config import Config
from cri.containerd_client import Containerd
from cri.events import EventHub
from cri.state import Store
from cri.task_events import ProcessExits

if TYPE_CHECKING:
    from cri.images.store import ImageStore
    from cri.streaming.server import StreamingServer


@dataclass(kw_only=True)
class Runtime:
    config: Config
    containerd: Containerd
    store: Store
    cni: Cni
    events: EventHub
    images: "ImageStore"
    exits: ProcessExits
    tasks: asyncio.TaskGroup
    streaming: "StreamingServer | None" = None
    user_namespaces: bool = False
    """Whether pods can have users of their own; found out at the start."""

    @property
    def root(self) -> Path:
        return Path(self.config.root)

    @property
    def stages(self) -> Path:
        """Where mounts with mapped ids are made: a directory of this shim's alone, that any user may pass through."""
        return Path(self.config.userns_dir) / hashlib.sha256(self.config.root.encode()).hexdigest()[:12]

    @property
    def state(self) -> Path:
        return Path(self.config.state)
