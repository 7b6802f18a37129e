"""The loop: policies, pods and namespaces become one nft transaction whenever they change.

Pods and namespaces are followed from the first policy on: a cluster without policies pays nothing for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from machinery.api.service_views import Namespace
from machinery.client.informer import Informer
from machinery.component import logs, metrics
from services.kube_proxy.api import NetworkPolicy, Pod
from services.kube_proxy.nft import Names, Nft, NftError
from services.kube_proxy.policy import render
from services.kube_proxy.policy.plan import Plan, plan

log = logs.get("policy")
RETRY_SECONDS_FIRST = 0.5
RETRY_SECONDS_MAX = 30.0
# Several pods start and end at once; what follows the first change within this time goes into the same transaction.
GATHER_SECONDS = 0.005

refused = metrics.counter("cutaway_network_policy_nft_failures_total", "Transactions that nft refused.")


async def leave(nft: Nft) -> None:
    """Take our rules away: another one enforces policies from now on. Raises NftError."""
    await nft.apply(f"add table {render.TABLE}\ndelete table {render.TABLE}\n")


class PolicyAgent:
    """Keeps the table in step. `follow(kind name)` starts an informer of pods or namespaces when it is first needed."""

    def __init__(
        self,
        policies: Informer[NetworkPolicy],
        follow: Callable[[str], Informer[Any]],
        nft: Nft,
        node: str,
        pod_cidr: Callable[[], str],
        cluster_cidr: str = "",
    ) -> None:
        self.policies = policies
        self.follow = follow
        self.nft = nft
        self.node = node
        self.pod_cidr = pod_cidr
        self.cluster_cidr = cluster_cidr
        self.pods: Informer[Pod] | None = None
        self.namespaces: Informer[Namespace] | None = None
        self.current: Plan | None = None
        self.wake = asyncio.Event()
        policies.add_handler(lambda _old, _new: self.wake.set())

    async def run(self) -> None:
        """Sync for ever."""
        pause = RETRY_SECONDS_FIRST
        while not await self._held_until_known():
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)
        await self.policies.synced.wait()
        pause = RETRY_SECONDS_FIRST
        while True:
            self.wake.clear()
            try:
                await self._sync()
                pause = RETRY_SECONDS_FIRST
            except NftError as error:
                refused.inc()
                log.error("nft refused the policies; writing them anew", error=str(error), pause_seconds=pause)
                self.current = None
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)
                continue
            await self.wake.wait()
            await asyncio.sleep(GATHER_SECONDS)

    async def _held_until_known(self) -> bool:
        """After a start of the machine, hold every pod until it is known which are isolated; whether that worked.

        Rules that an earlier run left are better than that: they stay until the new ones replace them.
        """
        try:
            if self.cluster_cidr and not (await self.nft.names(render.TABLE)).chains:
                await self.nft.apply(render.adopt(Plan(held=self.cluster_cidr), Names()))
        except NftError as error:
            refused.inc()
            log.error("nft refused to hold pods until the policies are known", error=str(error))
            return False
        return True

    async def _sync(self) -> None:
        wanted = await self._plan()
        if self.current is None:
            transaction = render.adopt(wanted, await self.nft.names(render.TABLE))
        else:
            transaction = render.difference(self.current, wanted)
        if transaction:
            await self.nft.apply(transaction)
        self.current = wanted

    async def _plan(self) -> Plan:
        policies = self.policies.lister.list()
        if not policies:
            return Plan()
        if self.pods is None or self.namespaces is None:
            self.pods, self.namespaces = self.follow("pods"), self.follow("namespaces")
            self.pods.add_handler(self._pod_changed)
            self.namespaces.add_handler(lambda old, new: self.wake.set() if _labels(old) != _labels(new) else None)
        await self.pods.synced.wait()
        await self.namespaces.synced.wait()
        return plan(policies, self.pods.lister.list(), self.namespaces.lister.list(), self.node, self.pod_cidr())

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if _matters(old) != _matters(new):
            self.wake.set()


def _labels(item: Namespace | None) -> object:
    return None if item is None else (item.metadata.name, item.metadata.labels)


def _matters(pod: Pod | None) -> object:
    if pod is None or pod.status is None:
        return None
    return pod.metadata.labels, pod.status.phase, pod.status.pod_ip, pod.status.pod_ips, pod.spec
