"""Field selectors of custom resources that a webhook converts: a version's fields are seen only once an object has been
converted to it, so they are judged after everything else has been selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.apiserver import codec, conversion
from services.apiserver.entries import Entry
from services.apiserver.registry.resource import Resource
from services.apiserver.selection import FieldCondition, Selection, extractor
from services.apiserver.watcher import Change, WatchEvent


class LateSelection:
    """What is left of a selection. Everything here answers JSON of the version that `resource` serves."""

    def __init__(self, resource: Resource, conditions: Sequence[FieldCondition]) -> None:
        self._resource = resource
        self._conditions = tuple(conditions)
        self._extract = extractor(resource.extracted or ())

    def matches(self, served: bytes) -> bool:
        """Whether a converted object has the fields that are wanted."""
        fields = self._extract(codec.decode(served))
        return all((fields[one.position] == one.value) is one.equal for one in self._conditions)

    async def chosen(self, entries: Sequence[Entry]) -> list[tuple[Entry, bytes]]:
        """The entries that match, converted. Raises InternalError if the webhook fails."""
        values = await conversion.served_all(self._resource, [entry.value for entry in entries])
        return [(entry, value) for entry, value in zip(entries, values, strict=True) if self.matches(value)]

    async def initial(self, entries: Sequence[Entry]) -> list[WatchEvent]:
        """The state that a watch begins with."""
        return [WatchEvent("ADDED", value, entry.revision, entry) for entry, value in await self.chosen(entries)]

    async def events(self, changes: Sequence[Change], selection: Selection) -> list[WatchEvent]:
        """Changes as a watch sees them; `selection` is what was selected before."""
        # Both states of every change, in one review.
        states = [(change, entry) for change in changes for entry in (change.old, change.last) if entry is not None]
        values = await conversion.served_all(self._resource, [entry.value for _, entry in states])
        served = {id(entry): value for (_, entry), value in zip(states, values, strict=True)}

        def seen(entry: Entry | None) -> bytes | None:
            if entry is None or not selection.matches(entry.namespace, entry.name, entry.labels, entry.fields):
                return None
            return served[id(entry)] if self.matches(served[id(entry)]) else None

        out: list[WatchEvent] = []
        for change in changes:
            was, now = seen(change.old), seen(change.new)
            if now is not None:
                kind = "MODIFIED" if was is not None else "ADDED"
                out.append(WatchEvent(kind, now, change.revision, change.last))
            elif was is not None:
                gone = served[id(change.last)] if change.new is None else codec.with_revision(was, change.revision)
                out.append(WatchEvent("DELETED", gone, change.revision, change.old))
        return out


def split(resource: Resource, selection: Selection) -> tuple[Selection, LateSelection | None]:
    """The part of a selection that stored objects can be judged by, and the rest of it."""
    late = [one for one in selection.conditions if one.position >= 0]
    if resource.remote is None or resource.as_stored or not late:
        return selection, None
    early = tuple(one for one in selection.conditions if one.position < 0)
    return replace(selection, conditions=early), LateSelection(resource, late)
