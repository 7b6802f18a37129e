"""Sets of fields, in the form in which `metadata.managedFields` stores them (`fieldsV1`): nested dicts, no conversion.

A path element is a key: `f:replicas` a field, `k:{"name":"web"}` an item of a map-list by its keys, `v:"x"` an item of
a set. Below it stands the set of what is under it. A path belongs to the set if its dict is empty or holds the element
`.`; otherwise it only leads to others. The root is a set too, the empty one `{}`.

    {"f:spec": {"f:replicas": {}, "f:template": {".": {}, "f:metadata": {…}}}}      spec.replicas, spec.template and
    below

Functions never change their arguments, and give back the very argument where nothing is different.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

FieldSet = dict[str, Any]
SELF = "."
_EMPTY: FieldSet = {}


def is_member(below: FieldSet) -> bool:
    """Does the path whose subset this is belong to the set itself?"""
    return not below or SELF in below


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Everything that is in either."""
    out: FieldSet | None = None
    for key, theirs in right.items():
        ours = left.get(key)
        merged = theirs if ours is None else _union_below(ours, theirs)
        if merged is not ours:
            if out is None:
                out = dict(left)
            out[key] = merged
    return left if out is None else out


def _union_below(ours: FieldSet, theirs: FieldSet) -> FieldSet:
    if ours == theirs:
        return ours
    if not ours:
        return theirs if SELF in theirs else {SELF: _EMPTY, **theirs}
    if not theirs:
        return ours if SELF in ours else {SELF: _EMPTY, **ours}
    return union(ours, theirs)


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in `left` and not in `right`."""
    out: FieldSet | None = None
    for key, theirs in right.items():
        ours = left.get(key)
        if ours is None:
            continue
        rest = _difference_below(ours, theirs)
        if rest is not ours:
            if out is None:
                out = dict(left)
            if rest is None:
                del out[key]
            else:
                out[key] = rest
    return left if out is None else out


def _difference_below(ours: FieldSet, theirs: FieldSet) -> FieldSet | None:
    """None if nothing is left of a path and what is under it."""
    member = is_member(ours) and not is_member(theirs)
    children = {key: value for key, value in ours.items() if key != SELF}
    others = {key: value for key, value in theirs.items() if key != SELF}
    rest = difference(children, others)
    if rest == children and member == is_member(ours):
        return ours
    if not rest:
        return {} if member else None
    return {SELF: _EMPTY, **rest} if member else rest


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in both."""
    out: FieldSet = {}
    for key, theirs in right.items():
        ours = left.get(key)
        if ours is None or key == SELF:
            continue
        children = intersection(ours, theirs)
        children.pop(SELF, None)
        if is_member(ours) and is_member(theirs):
            out[key] = {SELF: _EMPTY, **children} if children else {}
        elif children:
            out[key] = children
    return out


def remove_paths(fields: FieldSet, paths: tuple[tuple[str, ...], ...]) -> FieldSet:
    """The set without these paths and everything under them."""
    for path in paths:
        fields = _without(fields, path)
    return fields


def _without(fields: FieldSet, path: tuple[str, ...]) -> FieldSet:
    head = path[0]
    below = fields.get(head)
    if below is None:
        return fields
    if len(path) == 1:
        return {key: value for key, value in fields.items() if key != head}
    rest = _without(below, path[1:]) if below else below
    if rest is below:
        return fields
    out = dict(fields)
    if rest:
        out[head] = rest
    else:
        del out[head]
    return out


def members(fields: FieldSet, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every path of the set, parents before children."""
    for key in sorted(fields):
        if key == SELF:
            continue
        path = (*prefix, key)
        if is_member(fields[key]):
            yield path
        yield from members(fields[key], path)


def overlaps(fields: FieldSet, path: tuple[str, ...]) -> bool:
    """Is the path, or anything under it, in the set?"""
    for key in path:
        below = fields.get(key)
        if below is None:
            return False
        fields = below
    return True


def path_text(path: tuple[str, ...]) -> str:
    """`.spec.template.spec.containers[name="web"].image`."""
    out = ""
    for element in path:
        sort, _, rest = element.partition(":")
        match sort:
            case "f":
                out += f".{rest}"
            case "k":
                keys = json.loads(rest)
                out += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
            case "v":
                out += f"[={rest}]"
            case _:
                out += f"[{rest}]"
    return out
