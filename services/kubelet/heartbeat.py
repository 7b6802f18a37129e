"""Renews the leases of nodes: one for a kubelet, a batch for a process that runs many hollow ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from machinery.api import errors, kinds
from machinery.api.objects import now_rfc3339_micro
from machinery.client.api_client import ApiClient, Mutation, PatchType
from machinery.component import logs

log = logs.get("kubelet")

NAMESPACE = "kube-node-lease"
_RETRY_SECONDS = 1.0


class Heartbeats:
    """Keeps the leases of the nodes that were added. `run` it in a TaskGroup."""

    def __init__(self, client: ApiClient, lease_seconds: int = 40) -> None:
        self._client = client
        self._lease_seconds = lease_seconds
        self._nodes: dict[str, bool] = {}  # name -> whether its lease is known to exist
        self._uids: dict[str, Callable[[], str]] = {}
        self._owners: dict[str, str] = {}  # name -> uid of the Node that its lease is known to belong to
        self._wake = asyncio.Event()

    def add(self, name: str, uid: Callable[[], str] = str) -> None:
        """Keep this node's lease. `uid` tells its Node's, empty while there is none: the lease goes with its Node."""
        self._nodes.setdefault(name, False)
        self._uids[name] = uid
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            pause = self._lease_seconds / 4
            try:
                if self._nodes and not await self._renew():
                    pause = _RETRY_SECONDS
            except errors.ApiError as error:
                log.warning("leases could not be renewed, trying again", error=str(error))
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _renew(self) -> bool:
        """Renew all; False if some have to be tried again soon."""
        names = list(self._nodes)
        now = now_rfc3339_micro()
        uids = [self._uids[name]() for name in names]
        mutations = [self._mutation(name, uid, now) for name, uid in zip(names, uids, strict=True)]
        well = True
        for name, uid, result in zip(names, uids, await self._client.batch(mutations), strict=True):
            if result.error is None:
                self._nodes[name] = True
                self._owners[name] = uid
            elif isinstance(result.error, errors.AlreadyExists):
                self._nodes[name] = True
            elif isinstance(result.error, errors.NotFound):
                # No such lease, or its namespace is not there yet.
                self._nodes[name] = False
                self._owners.pop(name, None)
                well = False
            else:
                log.warning("lease could not be renewed", node=name, error=str(result.error))
                well = False
        return well

    def _mutation(self, name: str, uid: str, now: str) -> Mutation:
        spec: dict[str, Any] = {"renewTime": now}
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
        owned = {"ownerReferences": [owner]} if uid else {}
        if self._nodes[name]:
            patch: dict[str, Any] = {"spec": spec}
            if uid and self._owners.get(name) != uid:
                patch["metadata"] = owned
            return Mutation.patch(kinds.LEASE, name, NAMESPACE, patch, type=PatchType.MERGE)
        spec |= {"holderIdentity": name, "leaseDurationSeconds": self._lease_seconds}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": NAMESPACE, **owned},
            "spec": spec,
        }
        return Mutation.create(kinds.LEASE, lease, NAMESPACE)
