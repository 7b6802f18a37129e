"""Which fields of an object, and which objects of a cluster, differ: pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# What changes with every write and says nothing about it.
_SILENT = frozenset({"metadata.resourceVersion", "metadata.managedFields", "metadata.generation"})
# A value longer than this is shortened on screen.
VALUE_CHARACTERS_MAX = 60
_ABSENT = object()
# In place of what a Secret holds: these lines end up in terminals, logs and tickets.
HIDDEN = "***"
_APPLIED = 'metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]'


@dataclass(frozen=True, slots=True)
class Change:
    """One field of an object. `old` or `new` is None where it was not there."""

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.path} = {_short(self.new)}"
        if self.new is None:
            return f"- {self.path} (was {_short(self.old)})"
        return f"~ {self.path}: {_short(self.old)} -> {_short(self.new)}"


def difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[Change, ...]:
    """Which fields differ, by path, leaf by leaf. What every write changes is left out; of a Secret's values it is said
    that they differ, and no more."""
    found = (change for change in _differences(old, new, "") if change.path not in _SILENT)
    if "Secret" in (old.get("kind"), new.get("kind")):
        found = map(_hidden, found)
    return tuple(found)


def _hidden(change: Change) -> Change:
    # `data` and the annotations may come as a whole; among these kubectl keeps a copy of what was applied.
    field = change.path.partition(".")[0].partition("[")[0]
    if field not in ("data", "stringData") and change.path not in (_APPLIED, "metadata.annotations"):
        return change
    return Change(change.path, *(None if value is None else HIDDEN for value in (change.old, change.new)))


def _differences(old: Any, new: Any, path: str) -> Iterator[Change]:
    if path in _SILENT or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _member(old.get(key, _ABSENT), new.get(key, _ABSENT), _joined(path, key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_differences(old, new, path)
    else:
        yield Change(path, old, new)


def _member(old: Any, new: Any, path: str) -> Iterator[Change]:
    if old is _ABSENT:
        yield Change(path, None, new)
    elif new is _ABSENT:
        yield Change(path, old, None)
    else:
        yield from _differences(old, new, path)


def _list_differences(old: list[Any], new: list[Any], path: str) -> Iterator[Change]:
    """Items with a name or a type are told apart by it, as people do; others by their place."""
    key = next((k for k in ("name", "type") if all(isinstance(i, dict) and k in i for i in (*old, *new))), None)
    if key is None or len({item[key] for item in old}) != len(old) or len({item[key] for item in new}) != len(new):
        pairs: dict[Any, list[Any]] = {index: [item, _ABSENT] for index, item in enumerate(old)}
        by_key = dict(enumerate(new))
    else:
        pairs = {item[key]: [item, _ABSENT] for item in old}
        by_key = {item[key]: item for item in new}
    for name, item in by_key.items():
        pairs.setdefault(name, [_ABSENT, _ABSENT])[1] = item
    for name, (before, after) in pairs.items():
        yield from _member(before, after, f"{path}[{name}]")


def _joined(path: str, key: str) -> str:
    # A key with dots or slashes (an annotation's name) is not a path of its own.
    step = key if key.replace("-", "").replace("_", "").isalnum() else f'["{key}"]'
    return f"{path}{step}" if step.startswith("[") or not path else f"{path}.{step}"


def _short(value: Any) -> str:
    if value is HIDDEN:
        return HIDDEN
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of one object between two revisions. `changes` is None if it came or went."""

    what: str
    sign: str
    changes: tuple[Change, ...] | None

    def __str__(self) -> str:
        if self.changes is None:
            return f"{self.sign} {self.what}"
        return "\n".join([f"{self.sign} {self.what}", *(f"    {change}" for change in self.changes)])


def compared(older: dict[str, bytes], newer: dict[str, bytes]) -> list[Difference]:
    """Two states, each the objects' JSON by name, sorted by name."""
    out = []
    for what in sorted(older.keys() | newer.keys()):
        old, new = older.get(what), newer.get(what)
        if old is None or new is None:
            out.append(Difference(what, "+" if old is None else "-", None))
        elif old != new and (changes := difference(json.loads(old), json.loads(new))):
            out.append(Difference(what, "~", changes))
    return out
