"""Lists in chunks: the token that continues one, and the snapshots that keep its chunks consistent.

The first chunk's entries are kept (they are references to entries that the cache holds anyway), so later chunks see the
same state whatever is written meanwhile. After `KEEP_SECONDS`, or on another apiserver, the store's history answers;
after compaction Expired.
"""

from __future__ import annotations

import base64
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from machinery.api import errors
from services.apiserver.registry.resource import Resource
from storage.errors import Compacted, FutureRevision
from storage.store import Event, EventType, Store

if TYPE_CHECKING:
    from services.apiserver.entries import Entry
    from services.apiserver.watch_cache import WatchCache

KEEP_SECONDS = 300.0
"""As long as upstream keeps the revision of a list before it may be compacted. Our history is longer, but a list that
was begun so long ago ends with Expired all the same: clients are used to it, and old states need not be read.
"""
TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
SNAPSHOTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Continuation:
    """Continue after the key `after` ("namespace/name") in the state at `revision`; -1: in whatever state is the
    newest. `began` is when the list's first chunk was given (Unix time); 0: not known."""

    revision: int
    after: str
    began: int = 0

    def text(self) -> str:
        """As clients carry it; they may not look inside."""
        raw = orjson.dumps({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.after, "at": self.began})
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @staticmethod
    def parse(text: str) -> Continuation:
        """Raises BadRequest."""
        try:
            fields = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            revision, start = fields["rv"], fields["start"]
            began = fields.get("at", 0)
            sound = isinstance(revision, int) and isinstance(start, str) and isinstance(began, int)
            if fields["v"] != "meta.k8s.io/v1" or not sound:
                raise ValueError(text)
        except (ValueError, KeyError, TypeError) as err:
            raise errors.BadRequest("invalid continue token: continue key is not valid") from err
        return Continuation(revision, start, began)

    @property
    def expired(self) -> bool:
        """Whether the list was begun too long ago to go on consistently."""
        return 0 < self.began < time.time() - KEEP_SECONDS


class Snapshots:
    """The states that unfinished lists refer to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, str, int], tuple[float, Sequence[Entry]]] = OrderedDict()

    def keep(self, storage: str, namespace: str, revision: int, entries: Sequence[Entry]) -> None:
        """Remember a state for a while."""
        now = time.monotonic()
        self._kept[storage, namespace, revision] = (now + KEEP_SECONDS, entries)
        self._kept.move_to_end((storage, namespace, revision))
        while self._kept:
            key, (until, _) = next(iter(self._kept.items()))
            if until > now and len(self._kept) <= SNAPSHOTS_MAX:
                break
            del self._kept[key]

    async def at(self, cache: WatchCache, resource: Resource, namespace: str, revision: int) -> Sequence[Entry]:
        """The state at a revision, in key order. Raises Expired, Timeout."""
        kept = self._kept.get((resource.storage, namespace, revision))
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        await cache.wait_revision(revision)
        resource_cache = cache.of(resource.storage)
        if revision == cache.revision:
            return resource_cache.listed(namespace)
        try:
            page = await self._store.list(resource.storage, namespace or None, at_revision=revision)
        except (Compacted, FutureRevision) as err:
            raise errors.Expired(TOO_OLD) from err
        events = (
            Event(EventType.PUT, stored.key, stored.revision, stored.create_revision, stored.value)
            for stored in page.entries
        )
        entries = [resource_cache.entry(event) for event in events]
        self.keep(resource.storage, namespace, revision, entries)
        return entries
