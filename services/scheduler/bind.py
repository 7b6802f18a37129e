"""Binding: decisions go to the apiserver in batches, and each comes back as done, refused or unknown.

Unknown (the answer was lost) is the one that could bind twice or lose a pod: the pod stays assumed until the
apiserver says what is true.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from machinery.api import kinds
from machinery.api.errors import ApiError, NotFound, ServiceUnavailable, Timeout
from machinery.client.api_client import ApiClient, Mutation
from machinery.component import logs
from services.scheduler import instruments
from services.scheduler.pod_info import PodInfo
from services.scheduler.queue import Popped

BATCH_MAX = 500
IN_FLIGHT_MAX = 4
RESOLVE_SECONDS = 1.0

log = logs.get("bind")


class Binding(NamedTuple):
    """A pod and the node chosen for it."""

    popped: Popped
    node: str

    @property
    def pod(self) -> PodInfo:
        return self.popped.pod


Outcome = Callable[[Binding, ApiError | None], None]


def _mutation(binding: Binding) -> Mutation:
    metadata = binding.pod.pod.metadata
    obj = {
        "apiVersion": "v1",
        "kind": "Binding",
        # The uid makes it a binding of this pod, not of a namesake made since.
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": binding.node},
    }
    return Mutation.create(kinds.POD, obj, metadata.namespace, name=metadata.name, subresource="binding")


class Binder:
    """Sends bindings; tells `outcome` about each, with None or the error that refused it."""

    def __init__(self, client: ApiClient, tasks: asyncio.TaskGroup, outcome: Outcome) -> None:
        self._client = client
        self._tasks = tasks
        self._outcome = outcome
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def send(self, bindings: list[Binding]) -> None:
        """Start sending; waits only while too many batches are on their way."""
        for start in range(0, len(bindings), BATCH_MAX):
            await self._slots.acquire()
            part = bindings[start : start + BATCH_MAX]
            self._tasks.create_task(self._send(part), name=f"bind {len(part)} pods")

    async def _send(self, bindings: list[Binding]) -> None:
        begin = time.perf_counter()
        try:
            results = await self._client.batch([_mutation(binding) for binding in bindings])
        except (ServiceUnavailable, Timeout) as err:
            log.warning("bindings without an answer", count=len(bindings), error=err.message)
            for binding in bindings:
                await self._resolve(binding)
            return
        except ApiError as err:
            log.warning("bindings refused", count=len(bindings), error=err.message)
            for binding in bindings:
                self._outcome(binding, err)
            return
        finally:
            self._slots.release()
            instruments.bind_seconds.observe(time.perf_counter() - begin)
        for binding, result in zip(bindings, results, strict=True):
            self._outcome(binding, result.error)

    async def _resolve(self, binding: Binding) -> None:
        """Ask until the apiserver says whether the pod is bound."""
        metadata = binding.pod.pod.metadata
        while True:
            try:
                pod = await self._client.get(kinds.POD, metadata.name, metadata.namespace)
                if pod.metadata.uid != metadata.uid:
                    self._outcome(binding, NotFound(f"pod {binding.pod.key} is gone"))
                elif pod.spec.nodeName == binding.node:
                    self._outcome(binding, None)
                else:
                    self._outcome(binding, ServiceUnavailable("the binding was not written"))
                return
            except NotFound as err:
                self._outcome(binding, err)
                return
            except ApiError:
                await asyncio.sleep(RESOLVE_SECONDS)
