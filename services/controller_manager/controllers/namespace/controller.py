"""Empties namespaces that are being deleted, then lets them go."""

from __future__ import annotations

import asyncio
from collections import Counter

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from services.controller_manager import discovery
from services.controller_manager.actions import Plan, status_patch
from services.controller_manager.controllers.namespace import plan as planner
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import Namespace

# The first looks follow each other quickly, because most namespaces are empty at once.
_RETRY_SECONDS_FIRST = 0.1
# Lists in flight for one namespace.
_CONCURRENCY = 8


class NamespaceController(OfKind):
    """namespace"""

    name = "namespace"
    kind = kinds.NAMESPACE
    workers = 4

    def watch(self) -> None:
        """Namespaces."""
        self._passes: Counter[str] = Counter()
        self.on_own(kinds.NAMESPACE)

    async def reconcile(self, key: str) -> Plan | None:
        """One pass: delete what there is, count what is left, say so; finalize if nothing is."""
        namespace: Namespace | None = self.lister(kinds.NAMESPACE).by_key(key)
        if namespace is None or not planner.must_empty(namespace):
            del self._passes[key]
            return None
        contents = await self._empty(key)
        status = planner.status(namespace, contents, self.env.now())
        outcome = await self.apply(key, None, status_patch(kinds.NAMESPACE, namespace, status))
        if outcome.error is not None and not isinstance(outcome.error, errors.Conflict):
            outcome.check()
        if contents.empty:
            await self._finalize(namespace)
            return None
        self._passes[key] += 1
        wait = _RETRY_SECONDS_FIRST * 2 ** min(self._passes[key], 10)
        return Plan(requeue_after=min(planner.RETRY_SECONDS, wait))

    async def _empty(self, name: str) -> planner.Contents:
        contents = planner.Contents()
        try:
            served = discovery.deletable((await self.env.client.discover()).resources)
        except errors.ApiError as err:
            contents.discovery_error = err.message
            return contents
        by_resource = {kind.resource: (kind, verbs) for kind, verbs in served if kind.namespaced}
        limit = asyncio.Semaphore(_CONCURRENCY)

        async def one(kind: Kind, verbs: frozenset[str]) -> None:
            async with limit:
                await self._empty_one(name, kind, verbs, contents)

        for stage in planner.stages([*by_resource]):
            async with asyncio.TaskGroup() as tasks:
                for resource in stage:
                    tasks.create_task(one(*by_resource[resource]), name=f"empty {name} {resource}")
            if not contents.empty:
                break
        return contents

    async def _empty_one(self, name: str, kind: Kind, verbs: frozenset[str], contents: planner.Contents) -> None:
        client = self.env.client
        try:
            listing = await client.list(kind, name, decode=objects.decode_partial)
            if not listing.items:
                return
            if "deletecollection" in verbs:
                await client.delete_collection(kind, name)
            else:
                for obj in listing.items:
                    if obj.metadata.deletionTimestamp is None:
                        await client.delete(kind, obj.metadata.name, name, uid=obj.metadata.uid)
            listing = await client.list(kind, name, decode=objects.decode_partial)
        except (errors.NotFound, errors.MethodNotAllowed):
            return  # Its definition, or the object, went away meanwhile.
        except errors.ApiError as err:
            contents.errors.append(err.message)
            return
        if listing.items:
            # Upstream names resources with their version's dot even for the core group: "pods.".
            contents.remaining[f"{kind.plural}.{kind.group}"] = len(listing.items)
        for obj in listing.items:
            for finalizer in obj.metadata.finalizers or ():
                contents.finalizers[finalizer] = contents.finalizers.get(finalizer, 0) + 1

    async def _finalize(self, namespace: Namespace) -> None:
        try:
            live = objects.to_dict(await self.env.client.get(kinds.NAMESPACE, namespace.metadata.name))
            if live["metadata"]["uid"] != namespace.metadata.uid:
                return
            spec = live.setdefault("spec", {})
            spec["finalizers"] = [name for name in spec.get("finalizers") or () if name != planner.FINALIZER]
            await self.env.client.update(kinds.NAMESPACE, live, subresource="finalize")
        except errors.NotFound:
            return
