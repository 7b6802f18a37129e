"""What is written about a pod that fits nowhere.

Its PodScheduled condition, in batches and only when it says something new.
"""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.api import kinds, objects
from machinery.api.errors import ApiError, NotFound
from machinery.client.api_client import ApiClient, Mutation, PatchType
from machinery.component import logs
from services.scheduler.pod_info import PodInfo

UNSCHEDULABLE = "Unschedulable"
SCHEDULER_ERROR = "SchedulerError"

FLUSH_SECONDS = 0.1

log = logs.get("conditions")


class ConditionWriter:
    """Holds at most one condition a pod: a newer one replaces what was not written yet."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self._pending: dict[str, tuple[PodInfo, dict[str, Any]]] = {}
        self._written: dict[str, tuple[str, str]] = {}
        self._wake = asyncio.Event()

    def set(self, pod: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """PodScheduled is False for this reason."""
        present = next((c for c in pod.pod.status.conditions or () if c.type == "PodScheduled"), None)
        if nominated is None:
            if present is not None and (present.status, present.reason, present.message) == ("False", reason, message):
                return
            if self._written.get(pod.uid) == (reason, message):
                return
        self._written[pod.uid] = (reason, message)
        condition: dict[str, Any] = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        if pod.pod.metadata.generation:
            condition["observedGeneration"] = pod.pod.metadata.generation
        if present is None or present.status != "False":
            condition["lastTransitionTime"] = objects.now_rfc3339()
        status: dict[str, Any] = {"conditions": [condition]}
        if nominated is not None:
            status["nominatedNodeName"] = nominated or None
        self._pending[pod.uid] = (pod, status)
        self._wake.set()

    def forget(self, uid: str) -> None:
        """The pod is gone or has a node."""
        self._pending.pop(uid, None)
        self._written.pop(uid, None)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_SECONDS)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending. What fails is dropped: the next attempt to schedule the pod says it again."""
        pending, self._pending = self._pending, {}
        entries = list(pending.values())
        mutations = [
            Mutation.patch(
                kinds.POD, pod.name, pod.namespace, {"metadata": {"uid": pod.uid}, "status": status},
                type=PatchType.STRATEGIC, subresource="status",
            )
            for pod, status in entries
        ]  # fmt: skip
        try:
            results = await self.client.batch(mutations)
        except ApiError as err:
            log.info("conditions not written", count=len(entries), error=err.message)
            for pod, _ in entries:
                self._written.pop(pod.uid, None)
            return
        for (pod, _), result in zip(entries, results, strict=True):
            if result.error is not None:
                self._written.pop(pod.uid, None)
                if not isinstance(result.error, NotFound):
                    log.info("condition not written", pod=pod.key, error=result.error.message)
