"""`metadata.managedFields`: who last set which field, kept up on every write (structured-merge-diff's Updater).

An entry stands for one manager, operation, API version (not for Apply) and subresource. A plain write takes the fields
that it changes from everyone else; what it removes, nobody owns any more. A write that changes nothing leaves the
entries untouched.
"""

from __future__ import annotations

from typing import Any

from services.apiserver.patch import field_set, typed
from services.apiserver.patch.field_set import FieldSet
from services.apiserver.schema.definitions import Node

Obj = dict[str, Any]
Entry = dict[str, Any]

UPDATE_MANAGERS_MAX = 10
"""More entries by plain writes than this are folded into one, the oldest first, so that objects don't grow without
end.
"""

ANCIENT = "ancient-changes"
_UNTRACKED = frozenset(("f:apiVersion", "f:kind"))
_UNTRACKED_METADATA = frozenset(
    (
        "f:name", "f:namespace", "f:creationTimestamp", "f:selfLink", "f:uid", "f:clusterName", "f:generation",
        "f:managedFields", "f:resourceVersion",
        # Nobody owns metadata as such, only fields in it.
        field_set.SELF,
    )
)  # fmt: skip


def tracked(fields: FieldSet) -> FieldSet:
    """A set without the fields that the server itself keeps."""
    metadata = fields.get("f:metadata")
    if metadata is None:
        if _UNTRACKED.isdisjoint(fields):
            return fields
        return {key: below for key, below in fields.items() if key not in _UNTRACKED}
    rest = {key: below for key, below in metadata.items() if key not in _UNTRACKED_METADATA}
    out: FieldSet = {}
    for key, below in fields.items():
        if key == "f:metadata":
            if rest:
                out[key] = rest
        elif key not in _UNTRACKED:
            out[key] = below
    return out


def entry_key(entry: Entry) -> tuple[str, str, str, str]:
    """What makes two entries one manager's."""
    operation = entry.get("operation", "")
    version = "" if operation == "Apply" else entry.get("apiVersion", "")
    return entry.get("manager", ""), operation, version, entry.get("subresource", "")


def decode(entries: Any) -> list[Entry]:
    """Entries as they came with an object: those that can be read. A list with one empty entry means: forget all."""
    out: list[Entry] = []
    for entry in entries or ():
        if (
            isinstance(entry, dict)
            and entry.get("operation") in ("Apply", "Update")
            and isinstance(entry.get("fieldsV1", {}), dict)
        ):
            out.append(entry)
    return out


def base_entries(old: Obj | None, new: Obj) -> list[Entry]:
    """The entries to go on from: the writer's own if it sent valid ones (kubectl migrates this way), else the live
    ones.

    `managedFields: [{}]` resets them.
    """
    sent = (new.get("metadata") or {}).get("managedFields")
    live = ((old or {}).get("metadata") or {}).get("managedFields") or []
    if not sent:
        return decode(live)
    if len(sent) == 1 and not sent[0]:
        return []
    readable = decode(sent)
    return readable if len(readable) == len(sent) else decode(live)


def record_update(
    node: Node,
    old: Obj | None,
    new: Obj,
    *,
    manager: str,
    api_version: str,
    now: str,
    subresource: str = "",
    builtin: bool = True,
    ignored: tuple[tuple[str, ...], ...] = (),
) -> list[Entry]:
    """The managedFields of `new` after a plain create, update or patch by `manager`; `old` is None for a create.

    `now` is RFC 3339. `ignored` are paths that this endpoint resets and so can't own. Nothing is changed in place; an
    unchanged list comes back as it was.
    """
    entries = base_entries(old, new)
    if old is not None and not entries:
        # Tracking starts with an object's creation, or with its first apply; who reset it does not want it.
        return []
    changed, removed = typed.compare(node, old if old is not None else {}, new, builtin=builtin)
    changed = tracked(field_set.remove_paths(changed, ignored))
    removed = tracked(removed)
    if not changed and not removed:
        return entries
    mine: Entry = {"manager": manager, "operation": "Update", "apiVersion": api_version}
    if subresource:
        mine["subresource"] = subresource
    if not entries:
        return [encode(mine, changed, now)] if changed else entries
    out = release(entries, entry_key(mine), changed, removed)
    return own(out, mine, changed, removed, now)


def release(entries: list[Entry], mine: tuple[str, str, str, str], changed: FieldSet, removed: FieldSet) -> list[Entry]:
    """Take what changed, and what was removed, from every other manager; managers left with nothing go."""
    out: list[Entry] = []
    for entry in entries:
        if entry_key(entry) == mine:
            out.append(entry)
            continue
        fields = entry.get("fieldsV1") or {}
        rest = fields
        if changed:
            rest = field_set.difference(rest, changed)
        if removed:
            rest = field_set.difference(rest, removed)
        if rest is fields:
            out.append(entry)
        elif rest:
            out.append({**entry, "fieldsV1": rest})
    return out


def own(entries: list[Entry], mine: Entry, changed: FieldSet, removed: FieldSet, now: str) -> list[Entry]:
    """Give what changed to one manager, and order and cap the entries."""
    key = entry_key(mine)
    current = next((entry for entry in entries if entry_key(entry) == key), None)
    before: FieldSet = (current or {}).get("fieldsV1") or {}
    fields = before
    if removed:
        fields = field_set.difference(fields, removed)
    if changed:
        fields = field_set.union(fields, changed)
    others = [entry for entry in entries if entry is not current]
    if not fields:
        return others
    if current is not None and fields == before:
        return entries
    mine = encode(mine, fields, now)
    return ordered([*others, mine])


def encode(mine: Entry, fields: FieldSet, now: str) -> Entry:
    """An entry with its keys in upstream's order."""
    out: Entry = {
        "manager": mine["manager"],
        "operation": mine["operation"],
        "apiVersion": mine["apiVersion"],
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if mine.get("subresource"):
        out["subresource"] = mine["subresource"]
    return out


def ordered(entries: list[Entry]) -> list[Entry]:
    """Applies first, then by time; and no more plain writers than may be."""
    updates = [entry for entry in entries if entry.get("operation") == "Update"]
    if len(updates) > UPDATE_MANAGERS_MAX:
        entries = _capped(entries, updates)
    return sorted(
        entries,
        key=lambda entry: (
            entry.get("operation", ""),
            entry.get("time") or "",
            entry.get("manager", ""),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        ),
    )


def _capped(entries: list[Entry], updates: list[Entry]) -> list[Entry]:
    updates = sorted(updates, key=lambda entry: (entry.get("time") or "", entry.get("manager", "")))
    folded = updates[: len(updates) - UPDATE_MANAGERS_MAX + 1]
    fields: FieldSet = {}
    for entry in folded:
        fields = field_set.union(fields, entry.get("fieldsV1") or {})
    newest = folded[-1]
    ancient: Entry = {"manager": ANCIENT, "operation": "Update", "apiVersion": newest["apiVersion"]}
    kept = [entry for entry in entries if not any(entry is one for one in folded)]
    return [*kept, encode(ancient, fields, newest.get("time") or "")]
