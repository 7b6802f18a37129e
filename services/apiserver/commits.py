"""The last step of every write: from a judged object to a durable one, and store errors to API errors."""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.entries import Entry
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Fence
from services.apiserver.watch_cache import WatchCache
from storage import errors as store_errors
from storage.store import ABSENT, Delete, Event, Guard, Key, Mutation, Put

LEASES = "leases.coordination.k8s.io"


class Changed(Exception):
    """The object is not any more what the write was based on: judge it again."""


class Taken(Exception):
    """A key that was to be created exists. `key` says which: the object's own, or one that `allocate` chose."""

    def __init__(self, key: Key) -> None:
        super().__init__(str(key))
        self.key = key


class Committer:
    """Writes to the store through the cache."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def create(
        self, resource: Resource, obj: dict[str, Any], fence: Fence | None, extra: list[Mutation], author: str
    ) -> Event:
        """Commit a new object. Raises Taken."""
        key, guards = key_of(resource, obj), self._guards_of(resource, obj["metadata"]["name"], fence)
        put = Put(key, ABSENT, resource.head, codec.encode_tail(obj), epoch_of(resource, obj), guards, author)
        return await self._commit(resource, [*extra, put], obj)

    async def replace(
        self,
        resource: Resource,
        entry: Entry,
        obj: dict[str, Any],
        tail: bytes,
        fence: Fence | None,
        extra: list[Mutation],
        author: str,
    ) -> Event:
        """Commit the next state of an object. Raises Changed if it is not `entry` any more."""
        key = Key(resource.storage, entry.namespace, entry.name)
        guards = self._guards_of(resource, entry.name, fence)
        put = Put(key, entry.revision, resource.head, tail, epoch_of(resource, obj), guards, author)
        return await self._commit(resource, [*extra, put], obj)

    async def remove(
        self, resource: Resource, entry: Entry, tail: bytes, fence: Fence | None, extra: list[Mutation], author: str
    ) -> Event:
        """Commit the end of an object. Raises Changed if it is not `entry` any more."""
        key = Key(resource.storage, entry.namespace, entry.name)
        guards = self._guards_of(resource, entry.name, fence)
        delete = Delete(key, entry.revision, resource.head, tail, guards, author)
        return await self._commit(resource, [*extra, delete], None)

    async def _commit(self, resource: Resource, mutations: list[Mutation], obj: dict[str, Any] | None) -> Event:
        objects: list[dict[str, Any] | None] = [None] * len(mutations)
        objects[-1] = obj
        try:
            events = await self._cache.commit(mutations, objects)
        except store_errors.KeyExists as err:
            await self._see(err)
            raise Taken(err.key) from err
        except store_errors.GuardFailed as err:
            raise _leadership_ended(resource, mutations[-1].key.name) from err
        except (store_errors.RevisionMismatch, store_errors.KeyMissing) as err:
            await self._see(err)
            raise Changed from err
        except (store_errors.StorageFull, store_errors.ReadOnly) as err:
            raise errors.InternalError(f"the store can not be written: {err}") from err
        except store_errors.Unavailable as err:
            raise errors.ServiceUnavailable(f"the store does not answer: {err}", retry_after_seconds=1) from err
        return events[-1]

    async def _see(self, error: store_errors.PreconditionFailed) -> None:
        """Wait until the cache holds what another apiserver has written, or the next attempt would be based on the same
        state. Raises Timeout."""
        if not self._cache.store.shared:
            return
        present = error.present
        try:
            await self._cache.wait_revision(
                present.revision if present is not None else await self._cache.store.newest()
            )
        except store_errors.StoreError as err:
            raise errors.ServiceUnavailable(f"the store does not answer: {err}", retry_after_seconds=1) from err

    def _guards_of(self, resource: Resource, name: str, fence: Fence | None) -> tuple[Guard, ...]:
        """The condition that the writer's leadership still holds. Raises Conflict if the Lease is another one already.

        A Lease that is deleted and made again begins to count anew; its uid does not come back. The store, which knows
        no uids, judges by the revision at which this Lease was created.
        """
        if fence is None:
            return ()
        created = 0
        if fence.uid:
            lease = self._cache.of(LEASES).get(fence.namespace, fence.name)
            if lease is None or lease.uid != fence.uid:
                raise _leadership_ended(resource, name)
            created = lease.create_revision
        return (Guard(Key(LEASES, fence.namespace, fence.name), fence.epoch, created),)


def _leadership_ended(resource: Resource, name: str) -> errors.ApiError:
    why = "the leadership under which this write was made has ended"
    return errors.conflict(resource.group, resource.plural, name, why)


def key_of(resource: Resource, obj: dict[str, Any]) -> Key:
    """Where an object is stored."""
    metadata = obj["metadata"]
    return Key(resource.storage, metadata.get("namespace", "") if resource.namespaced else "", metadata["name"])


def epoch_of(resource: Resource, obj: dict[str, Any]) -> int:
    """What fences compare: for a Lease the count of its holders, 0 for everything else."""
    if resource.storage != LEASES:
        return 0
    transitions = (obj.get("spec") or {}).get("leaseTransitions") or 0
    return int(transitions)
