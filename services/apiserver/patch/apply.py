"""Server-side apply: merge a configuration over the live object, by ownership (structured-merge-diff's Updater.Apply).

1. Merge the configuration over the live object.
2. Drop what this manager applied before, does not name now, and nobody else owns.
3. What changed and belongs to somebody else is a conflict, unless forced: then it is taken.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from machinery.api.errors import BadRequest, Cause, Conflict
from services.apiserver.patch import field_set, managed_fields, typed
from services.apiserver.patch.field_set import FieldSet
from services.apiserver.patch.managed_fields import Entry
from services.apiserver.schema.definitions import Node

Obj = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
BEFORE_FIRST_APPLY = "before-first-apply"
"""Owns what an untracked object already had when it is first applied to."""


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """`obj` with its new managedFields; `changed` is False if the apply was without effect (not even the entries)."""

    obj: Obj
    changed: bool


def apply(
    node: Node,
    live: Obj | None,
    config: Obj,
    *,
    manager: str,
    api_version: str,
    now: str,
    force: bool = False,
    subresource: str = "",
    builtin: bool = True,
    ignored: tuple[tuple[str, ...], ...] = (),
) -> Applied:
    """Apply `config` (taken in: no unknown fields, no nulls, canonical) over `live`, or create from it if that is None.

    The result is not yet defaulted or validated. `ignored` are paths, as field-set elements, that this endpoint resets.
    Raises Conflict with one cause a field; BadRequest for a configuration with managedFields or a list that can't be
    keyed.
    """
    if not manager:
        raise BadRequest(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
    if (config.get("metadata") or {}).get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    mine: Entry = {"manager": manager, "operation": "Apply", "apiVersion": api_version}
    if subresource:
        mine["subresource"] = subresource
    attempt = _Attempt(node, live, config, mine, now, builtin, ignored)
    conflicts = attempt.conflicts()
    if conflicts and not force and manager == _KUBECTL and live is not None:
        allowed = _from_last_applied(node, live, builtin=builtin)
        conflicts = [one for one in conflicts if not _member(allowed, one[1])]
    if conflicts and not force:
        raise conflict_error(conflicts)
    return attempt.result()


def refuse_undeclared(node: Node, config: Obj) -> None:
    """BadRequest for a configuration with fields that its kind doesn't have. To be asked before anything prunes them.

    Other than with plain writes this does not depend on field validation: what isn't in the schema can't be owned.
    """
    found = typed.undeclared(node, config)
    if not found:
        return
    metadata = config.get("metadata") or {}
    name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    which = f"{name}; {config.get('apiVersion')}, Kind={config.get('kind')}"
    listed = "\n".join(f"{field_set.path_text(path)}: field not declared in schema" for path in found)
    problems = f"errors:\n{listed}" if len(found) > 1 else listed
    raise BadRequest(f"failed to create typed patch object ({which}): {problems}")


class _Attempt:
    """One apply, worked out up to the question of conflicts."""

    def __init__(
        self, node: Node, live: Obj | None, config: Obj, mine: Entry, now: str, builtin: bool, ignored: Any
    ) -> None:
        self.live = live
        self.mine = mine
        self.now = now
        self.key = managed_fields.entry_key(mine)
        base = live or {}
        entries = managed_fields.decode((base.get("metadata") or {}).get("managedFields"))
        if live is not None and not entries:
            entries = _before_first(node, live, mine["apiVersion"], now, builtin)
        self.entries = entries
        fields = managed_fields.tracked(field_set.remove_paths(typed.field_set(node, config), ignored))
        self.fields = fields
        current = next((entry for entry in entries if managed_fields.entry_key(entry) == self.key), None)
        # Entries may come from a client (kubectl migrates its own), with fields that nobody can own.
        self.last: FieldSet = managed_fields.tracked((current or {}).get("fieldsV1") or {})
        self.current = current
        merged = typed.merge(node, base, _without_ignored(config, ignored))
        gone = self._gone()
        self.obj = typed.remove(node, merged, gone, self._owned()) if gone else merged
        changed, removed = typed.compare(node, base, self.obj, builtin=builtin)
        self.changed = managed_fields.tracked(field_set.remove_paths(changed, ignored))
        self.removed = managed_fields.tracked(removed)

    def _owned(self) -> FieldSet:
        """What anybody owns once this apply has been made."""
        owned = self.fields
        for entry in self.entries:
            if entry is not self.current:
                owned = field_set.union(owned, entry.get("fieldsV1") or {})
        return owned

    def _gone(self) -> FieldSet:
        """What was applied before and is owned by nobody now."""
        if not self.last or self.last == self.fields:
            return {}
        owned = self._owned()
        gone: FieldSet = {}
        for path in field_set.members(self.last):
            if not field_set.overlaps(owned, path):
                _insert(gone, path)
        return gone

    def conflicts(self) -> list[tuple[Entry, tuple[str, ...]]]:
        """(entry, path) of each changed field that another manager owns."""
        found: list[tuple[Entry, tuple[str, ...]]] = []
        for entry in self.entries:
            if managed_fields.entry_key(entry) != self.key:
                both = field_set.intersection(entry.get("fieldsV1") or {}, self.changed)
                found += [(entry, path) for path in field_set.members(both)]
        return found

    def result(self) -> Applied:
        entries = managed_fields.release(self.entries, self.key, self.changed, self.removed)
        same_fields = self.current is not None and self.current.get("fieldsV1") == self.fields
        same_version = self.current is not None and self.current.get("apiVersion") == self.mine["apiVersion"]
        if self.live is not None and same_fields and same_version and not self.changed and not self.removed:
            return Applied(self.live, changed=False)
        others = [entry for entry in entries if managed_fields.entry_key(entry) != self.key]
        if self.fields:
            others.append(managed_fields.encode(self.mine, self.fields, self.now))
        metadata = dict(self.obj.get("metadata") or {})
        metadata["managedFields"] = managed_fields.ordered(others)
        self._refresh_annotation(metadata)
        return Applied({**self.obj, "metadata": metadata}, changed=True)

    def _refresh_annotation(self, metadata: Obj) -> None:
        """kubectl's annotation of client-side apply follows, so that going back to that finds the truth."""
        annotations = metadata.get("annotations") or {}
        if self.mine["manager"] != _KUBECTL or LAST_APPLIED not in annotations or self.live is None:
            return
        config = {key: value for key, value in self.obj.items() if key in ("apiVersion", "kind", "metadata", "spec")}
        text = json.dumps(_applied_part(config, self.fields), separators=(",", ":"), sort_keys=True)
        metadata["annotations"] = {**annotations, LAST_APPLIED: text + "\n"}


def _applied_part(obj: Obj, fields: FieldSet) -> Obj:
    """The top-level fields that the applier owns, with the object's identity."""
    metadata = obj.get("metadata") or {}
    owned = fields.get("f:metadata") or {}
    kept = {name: value for name, value in metadata.items() if name in ("name", "namespace") or f"f:{name}" in owned}
    kept["annotations"] = {
        name: value for name, value in (kept.get("annotations") or {}).items() if name != LAST_APPLIED
    }
    out = {name: value for name, value in obj.items() if f"f:{name}" in fields or name in ("apiVersion", "kind")}
    return {**out, "metadata": kept}


def _insert(fields: FieldSet, path: tuple[str, ...]) -> None:
    """Add a path unless something above it is in already. Parents come first."""
    for element in path[:-1]:
        if element in fields and not fields[element]:
            return
        fields = fields.setdefault(element, {})
    fields.setdefault(path[-1], {})


def _member(fields: FieldSet, path: tuple[str, ...]) -> bool:
    for element in path:
        below = fields.get(element)
        if below is None:
            return False
        fields = below
    return field_set.is_member(fields)


def _without_ignored(config: Obj, ignored: tuple[tuple[str, ...], ...]) -> Obj:
    for path in ignored:
        config = _drop(config, tuple(element[2:] for element in path))
    return config


def _drop(obj: Obj, path: tuple[str, ...]) -> Obj:
    if path[0] not in obj:
        return obj
    out = dict(obj)
    if len(path) == 1:
        del out[path[0]]
    elif isinstance(out[path[0]], dict):
        out[path[0]] = _drop(out[path[0]], path[1:])
    return out


def _before_first(node: Node, live: Obj, api_version: str, now: str, builtin: bool) -> list[Entry]:
    changed, _ = typed.compare(node, {}, live, builtin=builtin)
    fields = managed_fields.tracked(changed)
    mine: Entry = {"manager": BEFORE_FIRST_APPLY, "operation": "Update", "apiVersion": api_version}
    return [managed_fields.encode(mine, fields, now)] if fields else []


def _from_last_applied(node: Node, live: Obj, *, builtin: bool) -> FieldSet:
    """Fields that client-side apply set and nobody changed since: server-side apply by kubectl may take them over."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        last = json.loads(text or "")
    except ValueError:
        return {}
    if not isinstance(last, dict):
        return {}
    try:
        fields = typed.field_set(node, last)
    except BadRequest:
        return {}
    changed, _ = typed.compare(node, typed.merge(node, live, last), live, builtin=builtin)
    return field_set.difference(fields, changed)


def conflict_error(conflicts: list[tuple[Entry, tuple[str, ...]]]) -> Conflict:
    """`Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas`, one cause a field."""
    causes = [
        Cause("FieldManagerConflict", f"conflict with {_manager_text(entry)}", field_set.path_text(path))
        for entry, path in conflicts
    ]
    if len(conflicts) == 1:
        entry, path = conflicts[0]
        message = f"Apply failed with 1 conflict: conflict with {_manager_text(entry)}: {field_set.path_text(path)}"
        return Conflict(message, causes=causes)
    by_manager: dict[str, list[str]] = {}
    for entry, path in conflicts:
        by_manager.setdefault(_manager_text(entry), []).append(f"- {field_set.path_text(path)}")
    parts = [f"conflicts with {manager}:\n" + "\n".join(paths) for manager, paths in sorted(by_manager.items())]
    return Conflict(f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(parts), causes=causes)


def _manager_text(entry: Entry) -> str:
    text = json.dumps(entry.get("manager", ""))
    if entry.get("subresource"):
        text += f' with subresource "{entry["subresource"]}"'
    if entry.get("operation") == "Update":
        text += f" using {entry.get('apiVersion')}"
    return text
