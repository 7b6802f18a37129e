"""Tells the cluster: enters this instance, writes the addresses into each Ingress' status, and Events about what is
wrong. Only one instance does the latter two (see `presence`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from machinery.api import errors, kinds
from machinery.api.service_views import EndpointSlice
from machinery.client.api_client import ApiClient, Mutation
from machinery.client.events import EventRecorder
from machinery.component import logs
from services.ingress import presence
from services.ingress.api import Ingress, Node
from services.ingress.table import Problem

log = logs.get("writer")

# People apply an Ingress, its Service and its Secret together: what is missing only for so long is no news.
SETTLE_SECONDS = 1.0
RETRY_SECONDS_FIRST = 0.2
RETRY_SECONDS_MAX = 30.0
TOLD_MAX = 10_000


def status_patches(ingresses: Iterable[Ingress], addresses: Sequence[str]) -> list[tuple[Ingress, dict[str, object]]]:
    """What to change so that each Ingress has these addresses. Pure."""
    wanted = [{"ip": address} for address in addresses]
    found: list[tuple[Ingress, dict[str, object]]] = []
    for ingress in ingresses:
        balancer = ingress.status.load_balancer if ingress.status else None
        have = [msgspec.to_builtins(address) for address in (balancer.ingress if balancer else None) or ()]
        if have != wanted:
            found.append((ingress, {"status": {"loadBalancer": {"ingress": wanted or None}}}))
    return found


class Writer:
    """`run` it in a TaskGroup; `wake` it when anything changed."""

    def __init__(
        self,
        client: ApiClient,
        node: str,
        ingresses: Callable[[], Sequence[Ingress]],
        problems: Callable[[], Sequence[Problem]],
        slices: Callable[[], Sequence[EndpointSlice]],
        nodes: Callable[[], Sequence[Node]],
        recorder: EventRecorder,
    ) -> None:
        self.client = client
        self.node = node
        self.ingresses = ingresses
        self.problems = problems
        self.slices = slices
        self.nodes = nodes
        self.recorder = recorder
        self.wake = asyncio.Event()
        # Key of an Ingress -> (uid, what it was told); what is no longer wrong is forgotten.
        self._told: dict[str, tuple[str, set[Problem]]] = {}

    async def publish(self, ip: str, http: int, https: int) -> None:
        """Enter this instance, trying until it works."""
        pause = RETRY_SECONDS_FIRST
        while True:
            try:
                piece = presence.endpoint_slice(self.node, ip, http, https)
                await self.client.apply(kinds.ENDPOINT_SLICE, piece, field_manager="ingress", force=True)
            except errors.ApiError as error:
                log.info("endpoint not published", error=error.message, pause_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
            else:
                return

    async def withdraw(self) -> None:
        """Take this instance out."""
        with contextlib.suppress(errors.ApiError):
            name = f"{presence.SERVICE}-{self.node}"
            await self.client.delete(kinds.ENDPOINT_SLICE, name, presence.NAMESPACE, timeout=1)

    async def run(self) -> None:
        """Follow for ever."""
        pause = RETRY_SECONDS_FIRST
        while True:
            await self.wake.wait()
            self.wake.clear()
            instances = presence.serving(self.slices(), self.nodes())
            if not presence.is_writer(self.node, instances):
                continue
            if not await self._write_status(list(dict.fromkeys(instances.values()))):
                self.wake.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
                continue
            pause = RETRY_SECONDS_FIRST
            if self._news():
                await asyncio.sleep(SETTLE_SECONDS)
                self._tell()

    async def _write_status(self, addresses: list[str]) -> bool:
        """Write what differs; whether all of it was taken."""
        patches = status_patches(self.ingresses(), addresses)
        mutations = [
            Mutation.patch(
                kinds.INGRESS, ingress.metadata.name, ingress.metadata.namespace, patch, subresource="status"
            )
            for ingress, patch in patches
        ]
        if not mutations:
            return True
        try:
            results = await self.client.batch(mutations)
        except errors.ApiError as error:
            log.warning("status not written", ingresses=len(mutations), error=error.message)
            return False
        failed = [result.error for result in results if result.error and not isinstance(result.error, errors.NotFound)]
        if failed:
            log.warning("status not written", ingresses=len(failed), error=failed[0].message)
        return not failed

    def _news(self) -> list[tuple[Ingress, Problem]]:
        by_key = {ingress.key: ingress for ingress in self.ingresses()}
        return [
            (by_key[problem.ingress], problem)
            for problem in self.problems()
            if problem.ingress in by_key and problem not in self._told_of(by_key[problem.ingress])
        ]

    def _told_of(self, ingress: Ingress) -> set[Problem]:
        uid, told = self._told.get(ingress.key, ("", set()))
        return told if uid == ingress.metadata.uid else set()

    def _tell(self) -> None:
        """Record Events for what is new and still wrong."""
        present: Mapping[str, set[Problem]] = {}
        for problem in self.problems():
            present.setdefault(problem.ingress, set()).add(problem)  # type: ignore[attr-defined]
        for ingress, problem in self._news():
            reference = {
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": ingress.metadata.name,
                "namespace": ingress.metadata.namespace, "uid": ingress.metadata.uid,
            }  # fmt: skip
            self.recorder.record(reference, "Warning", problem.reason, problem.message)
        uids = {ingress.key: ingress.metadata.uid for ingress in self.ingresses()}
        self._told = {key: (uids[key], present[key]) for key in list(present)[:TOLD_MAX] if key in uids}
