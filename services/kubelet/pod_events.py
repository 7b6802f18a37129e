"""Which pods changed in the runtime: pushed by CRI's event stream; a slow relist is the safety net.

Where the runtime offers no stream (containerd before 1.7), the relist runs every second, as upstream's does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cri_api.v1 import api_pb2 as cri

from machinery.component import logs
from services.kubelet.container_config import LABEL_UID
from services.kubelet.runtime import Runtime, RuntimeFailure, Unsupported, sandbox_record
from services.kubelet.runtime_state import PodRuntime, order_containers

log = logs.get("kubelet")

RELIST_SECONDS_PUSHED = 60.0
RELIST_SECONDS_POLLED = 1.0
_RECONNECT_SECONDS = 0.5


class PodEvents:
    """Tells `changed(uid, state)`; state is None when only that something changed is known. `run` it in a TaskGroup."""

    def __init__(
        self,
        runtime: Runtime,
        changed: Callable[[str, PodRuntime | None], None],
        seen: Callable[[dict[str, PodRuntime]], None] = lambda _pods: None,
    ) -> None:
        self._runtime = runtime
        self._changed = changed
        self._seen = seen
        self._last: dict[str, PodRuntime] = {}
        self._pushed = False
        self.healthy = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stream(), name="CRI events")
            tasks.create_task(self._relist_for_ever(), name="CRI relist")

    async def _stream(self) -> None:
        while True:
            try:
                async for event in self._runtime.events():
                    self._pushed = True
                    self._take(event)
            except Unsupported:
                log.info("runtime offers no event stream, polling it", seconds=RELIST_SECONDS_POLLED)
                return
            except RuntimeFailure as error:
                if self._pushed:
                    log.warning("event stream of the runtime broke", error=error.message)
            # What happened meanwhile is found by looking.
            self._pushed = False
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _take(self, event: cri.ContainerEventResponse) -> None:
        status = event.pod_sandbox_status
        uid = status.metadata.uid or status.labels.get(LABEL_UID, "")
        if uid:
            self._changed(uid, self._state_of(event, uid))

    def _state_of(self, event: cri.ContainerEventResponse, uid: str) -> PodRuntime | None:
        """The pod's state out of the event itself, when it tells all of it.

        A pod with several sandboxes has to be looked at.
        """
        status = event.pod_sandbox_status
        known = self._last.get(uid)
        if known is not None and any(s.id != status.id for s in known.sandboxes):
            return None
        if event.container_event_type == cri.CONTAINER_DELETED_EVENT or status.metadata.attempt > 0:
            return None
        records = [self._runtime.remember(c, status.id) for c in event.containers_statuses]
        return PodRuntime(
            uid,
            status.metadata.namespace,
            status.metadata.name,
            (sandbox_record(status),),
            order_containers(records),
            at=event.created_at,
        )

    async def _relist_for_ever(self) -> None:
        while True:
            await self.relist()
            await asyncio.sleep(RELIST_SECONDS_PUSHED if self._pushed else RELIST_SECONDS_POLLED)

    async def relist(self) -> None:
        """Look at everything, tell what differs from the last look."""
        try:
            now = await self._runtime.list_summary()
        except RuntimeFailure as error:
            if self.healthy:
                log.warning("the runtime does not answer", error=error.message)
            self.healthy = False
            return
        self.healthy = True
        before, self._last = self._last, now
        for uid in before.keys() | now.keys():
            if before.get(uid) != now.get(uid):
                self._changed(uid, None)
        self._seen(now)
