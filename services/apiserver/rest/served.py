"""What the REST front serves: the registry's rows, and groups that only this front has (metrics.k8s.io)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from services.apiserver.registry.resource import Registry, Resource


class ServedRegistry:
    """Reads like a `Registry`. A group of our own gives way to one that the registry has by the same name."""

    def __init__(self, registry: Registry, own: Sequence[Resource] = ()) -> None:
        self._registry = registry
        self._own = tuple(own)

    def _extra(self) -> list[Resource]:
        known = self._registry.groups()
        return [row for row in self._own if row.group not in known]

    def resolve(self, group: str, version: str, plural: str) -> Resource:
        """The row. Raises NotFound."""
        found = self._registry.find(group, version, plural)
        if found is not None:
            return found
        for row in self._own:
            if (row.group, row.version, row.plural) == (group, version, plural) and row in self._extra():
                return row
        return self._registry.resolve(group, version, plural)

    def groups(self) -> list[str]:
        """The groups, in order of preference."""
        return self._registry.groups() + sorted({row.group for row in self._extra()})

    def versions(self, group: str) -> list[str]:
        """A group's versions, the preferred one first."""
        own = sorted({row.version for row in self._extra() if row.group == group}, reverse=True)
        return own or self._registry.versions(group)

    def serves(self, group: str, version: str) -> bool:
        """Whether there are rows of this group and version."""
        if version in self._registry.versions(group):
            return True
        return any(row.version == version for row in self._extra() if row.group == group)

    def in_version(self, group: str, version: str) -> list[Resource]:
        """The rows of one group and version by plural."""
        own = [row for row in self._extra() if (row.group, row.version) == (group, version)]
        return sorted(own, key=lambda row: row.plural) or self._registry.in_version(group, version)

    def all(self) -> Iterator[Resource]:
        """Every row."""
        yield from self._registry.all()
        yield from self._extra()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this whenever what is served changes."""
        self._registry.on_change(callback)
