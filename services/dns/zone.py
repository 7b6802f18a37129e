"""All records of the cluster, looked up by name.

Invariant: `names` holds each owner's records under their names, and `inner` counts, for every name above one that has
records, how many times it stands above one. A name without records that is in `inner` exists and is empty (NODATA); any
other name of the zone does not exist (NXDOMAIN). RFC 8020 makes the difference matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from services.dns.records import Record


class Zone:
    """Records by owner ("namespace/service"), so that a Service's change replaces just its own."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.names: dict[str, dict[str, list[str]]] = {}
        self.inner: Counter[str] = Counter()
        self.owned: dict[str, list[Record]] = {}
        # Grows with each change: answers that were made from an older one are stale.
        self.generation = 0
        for record in (
            Record(f"dns-version.{domain}", "TXT", '"1.1.0"'),
            Record(f"ns.dns.{domain}", "TXT", '"cutaway"'),
        ):
            self._insert(record)

    def replace(self, owner: str, records: Iterable[Record]) -> bool:
        """Make these the records of `owner`; whether that changed anything."""
        new = sorted(set(records))
        old = self.owned.get(owner, [])
        if new == old:
            return False
        for record in old:
            self._remove(record)
        for record in new:
            self._insert(record)
        if new:
            self.owned[owner] = new
        else:
            self.owned.pop(owner, None)
        self.generation += 1
        return True

    def find(self, name: str) -> dict[str, list[str]] | None:
        """Records of a name by type; an empty dict if it exists without any; None if it does not exist."""
        found = self.names.get(name)
        if found is not None:
            return found
        return {} if self.inner[name] > 0 else None

    def is_ours(self, name: str) -> bool:
        """Whether this server is the authority for a name: below the cluster's domain, or the address of a Service."""
        return name == self.domain or name.endswith(f".{self.domain}") or name in self.names

    def records(self, below: str = "") -> Iterator[Record]:
        """Every record at or below a name."""
        for name, by_type in sorted(self.names.items()):
            if not below or name == below or name.endswith(f".{below}"):
                for kind, values in sorted(by_type.items()):
                    yield from (Record(name, kind, value) for value in values)

    def _insert(self, record: Record) -> None:
        if record.name not in self.names:
            self.names[record.name] = {}
            self.inner.update(_above(record.name))
        self.names[record.name].setdefault(record.type, []).append(record.data)

    def _remove(self, record: Record) -> None:
        by_type = self.names[record.name]
        by_type[record.type].remove(record.data)
        if not by_type[record.type]:
            del by_type[record.type]
        if not by_type:
            del self.names[record.name]
            for name in _above(record.name):
                self.inner[name] -= 1
                if not self.inner[name]:
                    del self.inner[name]


def _above(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[number:]) for number in range(1, len(labels))]
