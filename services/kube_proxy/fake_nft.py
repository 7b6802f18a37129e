"""An nft without a kernel, for tests and for nodes that have none: it keeps tables and refuses what nft refuses.

It understands the commands that `render.py` and the policies write, one a line; rules are kept as text. It passes the
same contract as the real program: tests/contract/kube_proxy.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field

from services.kube_proxy.nft import Names, NftError

_JUMP = re.compile(r"\b(?:jump|goto) ([\w/.-]+)")
_REFERENCE = re.compile(r"@([\w/.-]+)")


@dataclass
class FakeTable:
    """What one table holds."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    sets: dict[str, dict[str, str]] = field(default_factory=dict)
    maps: set[str] = field(default_factory=set)
    definitions: dict[str, str] = field(default_factory=dict)


class FakeNft:
    """Implements Nft. `transactions` are those that were accepted."""

    def __init__(self) -> None:
        self.tables: dict[str, FakeTable] = {}
        self.transactions: list[str] = []

    async def apply(self, transaction: str) -> None:
        """See Nft."""
        before = copy.deepcopy(self.tables)
        try:
            for line in transaction.splitlines():
                if line.strip():
                    self._carry_out(line.strip())
            self._check_references()
        except NftError:
            self.tables = before
            raise
        self.transactions.append(transaction)

    async def names(self, table: str) -> Names:
        """See Nft."""
        found = self.tables.get(table, FakeTable())
        return Names(frozenset(found.chains), frozenset(found.sets.keys() - found.maps))

    def _carry_out(self, line: str) -> None:
        verb, what, rest = line.split(" ", 2)
        family, name, *words = rest.split(" ", 3)
        key = f"{family} {name}"
        if what == "table":
            if verb == "add":
                self.tables.setdefault(key, FakeTable())
            elif self.tables.pop(key, None) is None:
                raise NftError(f"no such table: {key}")
            return
        table = self.tables.get(key)
        if table is None:
            raise NftError(f"no such table: {key}")
        subject, body = words[0], words[1] if len(words) > 1 else ""
        match what:
            case "chain":
                _chain(table, verb, subject)
            case "rule":
                _existing(table.chains, subject).append(body)
            case "map" | "set":
                _set(table, verb, what, subject, body)
            case "element":
                _elements(table, verb, subject, body)
            case _:
                raise NftError(f"syntax error: {line}")

    def _check_references(self) -> None:
        for table in self.tables.values():
            texts = [rule for rules in table.chains.values() for rule in rules]
            texts += [value for values in table.sets.values() for value in values.values()]
            for text in texts:
                if missing := [c for c in _JUMP.findall(text) if c not in table.chains]:
                    raise NftError(f"no such chain: {missing[0]}")
                if missing := [s for s in _REFERENCE.findall(text) if s not in table.sets]:
                    raise NftError(f"no such set: {missing[0]}")


def _existing(things: dict[str, list[str]], name: str) -> list[str]:
    if name not in things:
        raise NftError(f"no such chain: {name}")
    return things[name]


def _chain(table: FakeTable, verb: str, name: str) -> None:
    if verb == "add":
        table.chains.setdefault(name, [])
    elif verb == "flush":
        _existing(table.chains, name).clear()
    elif _existing(table.chains, name):
        raise NftError(f"chain is not empty: {name}")
    else:
        del table.chains[name]


def _set(table: FakeTable, verb: str, what: str, name: str, definition: str) -> None:
    if verb == "add":
        if table.definitions.setdefault(name, definition) != definition:
            raise NftError(f"exists with another definition: {name}")
        table.sets.setdefault(name, {})
        if what == "map":
            table.maps.add(name)
        return
    if name not in table.sets:
        raise NftError(f"no such {what}: {name}")
    if verb == "flush":
        table.sets[name].clear()
    else:
        del table.sets[name], table.definitions[name]


def _elements(table: FakeTable, verb: str, name: str, body: str) -> None:
    if name not in table.sets:
        raise NftError(f"no such set: {name}")
    members = table.sets[name]
    for item in body.strip("{ }").split(", "):
        key, _, value = item.strip().partition(" : ")
        if verb == "delete":
            if key not in members:
                raise NftError(f"no such element: {name} {key}")
            del members[key]
        elif members.setdefault(key, value) != value:
            raise NftError(f"element exists: {name} {key}")
