"""Leader election on a Lease, by upstream's protocol and timings, with a fence for the leader's writes.

    candidate ── the Lease is free, or its holder silent for its duration ──> leader ── not renewed in time, or taken ──> the process ends
        ^                                                                        │
        └────────────────────────── stopped: the Lease is given back ────────────┘

The holder's silence is measured on our own monotonic clock from when we saw the Lease change last, so that no other machine's clock matters.
Each time the Lease is won `spec.leaseTransitions` grows; that number is the fence's epoch, and the apiserver refuses a fenced write once it
has grown again. So a leader that was paused can't write after its successor began, however late it notices.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from machinery.api import kinds, objects
from machinery.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from machinery.client.api_client import ApiClient, Fence
from machinery.component import logs, metrics
from machinery.component.process import Ended

log = logs.get("leader_election")


class LeadershipLost(Ended):
    """Another one leads, or we could not renew in time. The process ends: what it believes may be wrong."""


class LeaderElector:
    """One candidate for one Lease.

    `identity` must be unique to this process (host name, underscore, random): a successor with the same name would take itself for the leader.
    """

    def __init__(
        self,
        client: ApiClient,
        lease_name: str,
        identity: str,
        namespace: str = "kube-system",
        *,
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert lease_duration > renew_deadline > retry_period, "a leader must give up before another may take over"
        self.lease_name = lease_name
        self.namespace = namespace
        self.identity = identity
        self.leader = ""
        self._client = client
        self._lease_duration = lease_duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._clock = clock
        self._lease: dict[str, Any] | None = None
        self._observed_at = 0.0
        self._fence: Fence | None = None
        self._status = metrics.gauge("leader_election_master_status", "1 while this process leads.", ("name",)).labels(
            lease_name
        )

    @property
    def is_leading(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._fence is not None

    async def run(self, on_started_leading: Callable[[Fence], Awaitable[None]]) -> None:
        """Wait for leadership, then run `on_started_leading(fence)` while renewing.

        Returns when that function returns, or raises what it raises; raises LeadershipLost when leadership is lost. When it is left
        for any other reason, cancellation too, the Lease is given back so that the next candidate need not wait.
        """
        fence = await self._acquire()
        work: asyncio.Task[None] = asyncio.ensure_future(_as_coroutine(on_started_leading, fence))
        renewal: asyncio.Task[None] = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((work, renewal), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            lost = not renewal.cancelled() and renewal.exception() is not None
            self._fence = None
            self._status.set(0)
            if not lost:
                await self._release()
        if lost:
            renewal.result()
        work.result()

    async def _acquire(self) -> Fence:
        log.info("waiting for leadership", lease=self.lease_name, identity=self.identity)
        announced = ""
        while True:
            try:
                fence = await self._try_acquire()
            except (Conflict, AlreadyExists):
                fence = None  # Another candidate was faster.
            except ApiError as err:
                log.info("lease can't be read or taken, trying again", lease=self.lease_name, error=err.message)
                fence = None
            if fence is not None:
                self._fence = fence
                self.leader = self.identity
                self._status.set(1)
                log.info("became leader", lease=self.lease_name, epoch=fence.epoch)
                return fence
            if self.leader != announced:
                announced = self.leader
                log.info("another process leads", lease=self.lease_name, leader=self.leader)
            # Jitter as upstream's: candidates that started together shall not ask together for ever.
            await asyncio.sleep(self._retry_period * (1 + 0.2 * random.random()))  # noqa: S311

    async def _try_acquire(self) -> Fence | None:
        lease = await self._observe()
        if lease is None:
            self._saw(await self._client.create(_LEASE, self._record(None), self.namespace, timeout=self._retry_period))
            return self._won()
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        self.leader = holder
        expired = self._clock() - self._observed_at >= float(spec.get("leaseDurationSeconds") or self._lease_duration)
        if holder and not expired:
            return None
        self._saw(await self._client.update(_LEASE, self._record(lease), timeout=self._retry_period))
        return self._won()

    async def _observe(self) -> dict[str, Any] | None:
        try:
            lease = await self._client.get(_LEASE, self.lease_name, self.namespace, timeout=self._retry_period)
        except NotFound:
            return None
        if self._lease is None or lease["metadata"]["resourceVersion"] != self._lease["metadata"]["resourceVersion"]:
            self._saw(lease)
        return dict(lease)

    def _saw(self, lease: dict[str, Any]) -> None:
        self._lease = lease
        self._observed_at = self._clock()

    def _won(self) -> Fence:
        assert self._lease is not None
        return Fence(self.namespace, self.lease_name, int(self._lease["spec"]["leaseTransitions"]))

    def _record(self, old: dict[str, Any] | None) -> dict[str, Any]:
        """The Lease as this process takes it over from `old`."""
        now = objects.now_rfc3339_micro()
        transitions = ((old or {}).get("spec") or {}).get("leaseTransitions") or 0
        metadata = (old or {}).get("metadata") or {"name": self.lease_name, "namespace": self.namespace}
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": kinds.LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": max(1, round(self._lease_duration)),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions + 1,
            },
        }

    # --- as leader ----------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(self._retry_period)
            try:
                await self._renew_once()
                renewed_at = self._clock()
            except (Conflict, NotFound):
                if not await self._still_ours():
                    raise LeadershipLost(f"lease {self.lease_name} was taken by {self.leader or 'nobody'}") from None
            except ApiError as err:
                log.info("lease not renewed, trying again", lease=self.lease_name, error=err.message)
            if self._clock() - renewed_at >= self._renew_deadline:
                raise LeadershipLost(f"lease {self.lease_name} could not be renewed for {self._renew_deadline:g} s")

    async def _renew_once(self) -> None:
        assert self._lease is not None
        lease = {**self._lease, "spec": {**self._lease["spec"], "renewTime": objects.now_rfc3339_micro()}}
        self._saw(await self._client.update(_LEASE, lease, timeout=self._retry_period))

    async def _still_ours(self) -> bool:
        """After a conflict: did somebody only touch the Lease (a label, our own update whose answer was lost), or take it?"""
        assert self._fence is not None
        try:
            lease = await self._observe()
        except ApiError:
            return True  # Unknown; the deadline decides.
        spec = (lease or {}).get("spec") or {}
        self.leader = spec.get("holderIdentity") or ""
        return self.leader == self.identity and spec.get("leaseTransitions") == self._fence.epoch

    async def _release(self) -> None:
        if self._lease is None:
            return
        spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        spec["renewTime"] = objects.now_rfc3339_micro()
        try:
            await self._client.update(_LEASE, {**self._lease, "spec": spec}, timeout=1.0)
            log.info("gave leadership back", lease=self.lease_name)
        except ApiError as err:
            log.info("lease not given back, it runs out by itself", lease=self.lease_name, error=err.message)


# Leases are handled as dicts, so that a field which the model does not know survives the update.
_LEASE = kinds.Kind(kinds.LEASE.group, kinds.LEASE.version, "Lease.", kinds.LEASE.plural, True)


async def _as_coroutine(function: Callable[[Fence], Awaitable[None]], fence: Fence) -> None:
    await function(fence)
