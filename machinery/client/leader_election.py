"""Leader election on a Lease, by upstream's protocol and timings, with a fence for the leader's writes.

    candidate ── the Lease is free, or its holder silent for its duration ──> leader ──> the process ends
        ^                                                                       │     (not renewed in time, or taken)
        └────────────────────────── stopped: the Lease is given back ───────────┘

The holder's silence is measured on our own monotonic clock from when we saw the Lease change last, so that no other
machine's clock matters. Each time the Lease is won `spec.leaseTransitions` grows; that number is the fence's epoch,
and the apiserver refuses a fenced write once it has grown again, or the Lease is another one (somebody deleted it, and
the next leader's begins at 1 again). So a leader that was paused can't write after its
successor began, however late it notices.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lightkube.models import coordination_v1

from machinery.api import kinds, objects
from machinery.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from machinery.client.api_client import ApiClient, Fence
from machinery.component import logs, metrics
from machinery.component.process import Ended

_UNREACHABLE_SECONDS = 0.25

log = logs.get("leader_election")


class LeadershipLost(Ended):
    """Another one leads, or we could not renew in time. The process ends: what it believes may be wrong."""


class LeaderElector:
    """One candidate for one Lease.

    `identity` must be unique to this process (host name, underscore, random): a successor with the same name would
    take itself for the leader.
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
        self._lease: Any = None
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

        Returns when that function returns, or raises what it raises; raises LeadershipLost when leadership is lost.
        When it is left for any other reason, cancellation too, the Lease is given back so that the next candidate
        need not wait.
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
            pause = self._retry_period
            try:
                fence = await self._try_acquire()
            except (Conflict, AlreadyExists):
                fence = None  # Another candidate was faster.
            except ApiError as err:
                log.info("lease can't be read or taken, trying again", lease=self.lease_name, error=err.message)
                fence = None
                # Nobody leads while there is no apiserver: ask soon, so that a cluster that starts is not kept waiting.
                pause = min(pause, _UNREACHABLE_SECONDS)
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
            await asyncio.sleep(pause * (1 + 0.2 * random.random()))  # noqa: S311

    async def _try_acquire(self) -> Fence | None:
        lease = await self._observe()
        if lease is None:
            obj = {
                "apiVersion": kinds.LEASE.api_version,
                "kind": kinds.LEASE.kind,
                "metadata": {"name": self.lease_name, "namespace": self.namespace},
                "spec": self._claim(0),
            }
            self._saw(await self._client.create(kinds.LEASE, obj, self.namespace, timeout=self._retry_period))
            return self._won()
        self.leader = lease.spec.holderIdentity or ""
        duration = float(lease.spec.leaseDurationSeconds or self._lease_duration)
        if self.leader and self._clock() - self._observed_at < duration:
            return None
        await self._change(self._claim(lease.spec.leaseTransitions or 0))
        return self._won()

    def _claim(self, transitions: int) -> dict[str, Any]:
        now = objects.now_rfc3339_micro()
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._lease_duration)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions + 1,
        }

    async def _observe(self) -> Any:
        """The Lease as it is now, or None; remembers when it was seen to change."""
        try:
            lease = await self._client.get(kinds.LEASE, self.lease_name, self.namespace, timeout=self._retry_period)
        except NotFound:
            return None
        if self._lease is None or lease.metadata.resourceVersion != self._lease.metadata.resourceVersion:
            self._saw(lease)
        return lease

    def _saw(self, lease: Any) -> None:
        lease.spec = lease.spec or coordination_v1.LeaseSpec()
        self._lease = lease
        self._observed_at = self._clock()

    async def _change(self, spec: dict[str, Any], timeout: float | None = None) -> None:
        """Change the Lease that we saw last. Raises Conflict if it has changed since, NotFound."""
        assert self._lease is not None
        patch = {"metadata": {"resourceVersion": self._lease.metadata.resourceVersion}, "spec": spec}
        self._saw(
            await self._client.patch(
                kinds.LEASE, self.lease_name, self.namespace, patch, timeout=timeout or self._retry_period
            )
        )

    def _won(self) -> Fence:
        assert self._lease is not None
        return Fence(
            self.namespace, self.lease_name, int(self._lease.spec.leaseTransitions), self._lease.metadata.uid or ""
        )

    # --- as leader ----------------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(self._retry_period)
            try:
                await self._change({"renewTime": objects.now_rfc3339_micro()})
                renewed_at = self._clock()
            except (Conflict, NotFound):
                if not await self._still_ours():
                    raise LeadershipLost(f"lease {self.lease_name} was taken by {self.leader or 'nobody'}") from None
            except ApiError as err:
                log.info("lease not renewed, trying again", lease=self.lease_name, error=err.message)
            if self._clock() - renewed_at >= self._renew_deadline:
                raise LeadershipLost(f"lease {self.lease_name} could not be renewed for {self._renew_deadline:g} s")

    async def _still_ours(self) -> bool:
        """After a conflict.

        Did somebody only touch the Lease (a label, our own update whose answer was lost), or take it?
        """
        assert self._fence is not None
        try:
            lease = await self._observe()
        except ApiError:
            return True  # Unknown; the deadline decides.
        if lease is None:
            self.leader = ""
            return False
        self.leader = lease.spec.holderIdentity or ""
        same = lease.metadata.uid == self._fence.lease_uid and lease.spec.leaseTransitions == self._fence.epoch
        return bool(self.leader == self.identity and same)

    async def _release(self) -> None:
        if self._lease is None:
            return
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": objects.now_rfc3339_micro()}
        try:
            await self._change(spec, timeout=1.0)
            log.info("gave leadership back", lease=self.lease_name)
        except ApiError as err:
            log.info("lease not given back, it runs out by itself", lease=self.lease_name, error=err.message)


async def _as_coroutine(function: Callable[[Fence], Awaitable[None]], fence: Fence) -> None:
    await function(fence)
