"""The last step of every write: from a judged object to a durable one, and store errors to API errors."""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Fence
from services.apiserver.watch_cache import Entry, WatchCache
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
        self, resource: Resource, obj: dict[str, Any], fence: Fence | None, extra: list[Mutation]
    ) -> Event:
        """Commit a new object. Raises Taken."""
        key = key_of(resource, obj)
        put = Put(key, ABSENT, resource.head, codec.encode_tail(obj), epoch_of(resource, obj), guards_of(fence))
        return await self._commit(resource, [*extra, put], obj)

    async def replace(
        self,
        resource: Resource,
        entry: Entry,
        obj: dict[str, Any],
        tail: bytes,
        fence: Fence | None,
        extra: list[Mutation],
    ) -> Event:
        """Commit the next state of an object. Raises Changed if it is not `entry` any more."""
        key = Key(resource.storage, entry.namespace, entry.name)
        put = Put(key, entry.revision, resource.head, tail, epoch_of(resource, obj), guards_of(fence))
        return await self._commit(resource, [*extra, put], obj)

    async def remove(
        self, resource: Resource, entry: Entry, tail: bytes, fence: Fence | None, extra: list[Mutation]
    ) -> Event:
        """Commit the end of an object. Raises Changed if it is not `entry` any more."""
        key = Key(resource.storage, entry.namespace, entry.name)
        delete = Delete(key, entry.revision, resource.head, tail, guards_of(fence))
        return await self._commit(resource, [*extra, delete], None)

    async def _commit(self, resource: Resource, mutations: list[Mutation], obj: dict[str, Any] | None) -> Event:
        objects: list[dict[str, Any] | None] = [None] * len(mutations)
        objects[-1] = obj
        try:
            events = await self._cache.commit(mutations, objects)
        except store_errors.KeyExists as err:
            raise Taken(err.key) from err
        except store_errors.GuardFailed as err:
            why = "the leadership under which this write was made has ended"
            raise errors.conflict(resource.group, resource.plural, mutations[-1].key.name, why) from err
        except (store_errors.RevisionMismatch, store_errors.KeyMissing) as err:
            raise Changed from err
        except (store_errors.StorageFull, store_errors.ReadOnly) as err:
            raise errors.InternalError(f"the store can not be written: {err}") from err
        except store_errors.Unavailable as err:
            raise errors.ServiceUnavailable(f"the store does not answer: {err}", retry_after_seconds=1) from err
        return events[-1]


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


def guards_of(fence: Fence | None) -> tuple[Guard, ...]:
    """The condition that the writer's leadership still holds."""
    if fence is None:
        return ()
    return (Guard(Key(LEASES, fence.namespace, fence.name), fence.epoch),)
