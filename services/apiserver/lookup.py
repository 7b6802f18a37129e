"""Decoded objects for what judges writes: admission plugins and strategies look at namespaces, service accounts,
quotas, classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from services.apiserver import codec
from services.apiserver.entries import Entry
from services.apiserver.watch_cache import WatchCache

DECODED_MAX = 512
"""How many decoded objects are kept. The same few (the namespace, its default service account) are asked for all the
time; a pod, which its kubelet asks a token for, is asked for once and takes seven times its bytes."""


class Lookup:
    """Reads the watch cache as dicts. They are shared: do not change them."""

    def __init__(self, cache: WatchCache) -> None:
        self.cache = cache
        self._decoded: OrderedDict[tuple[str, str, str], tuple[Entry, dict[str, Any]]] = OrderedDict()

    def get(self, storage: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The object as it is now, or None."""
        entry = self.cache.of(storage).get(namespace, name)
        return self._decode(storage, entry) if entry is not None else None

    def exists(self, storage: str, namespace: str, name: str) -> bool:
        """Whether there is such an object."""
        return self.cache.of(storage).get(namespace, name) is not None

    def list(self, storage: str, namespace: str = "") -> Iterator[dict[str, Any]]:
        """The objects of one namespace or (empty) of all."""
        for entry in self.cache.of(storage).listed(namespace):
            yield self._decode(storage, entry)

    def _decode(self, storage: str, entry: Entry) -> dict[str, Any]:
        key = (storage, entry.namespace, entry.name)
        found = self._decoded.get(key)
        if found is not None and found[0] is entry:
            return found[1]
        obj = codec.decode(entry.value)
        self._decoded[key] = (entry, obj)
        self._decoded.move_to_end(key)
        if len(self._decoded) > DECODED_MAX:
            self._decoded.popitem(last=False)
        return obj
