"""Objects as structured-merge-diff sees them: what a set of fields an object has, how two differ, how one merges into
another.

Maps and objects are walked field by field unless atomic; lists by their keys (`map`), their values (`set`) or not at
all. Where there is no schema (a custom resource's preserved fields) objects are walked and lists are atomic.
"""

from __future__ import annotations

import functools
from typing import Any

import orjson

from machinery.api.errors import BadRequest
from services.apiserver.patch.field_set import SELF, FieldSet, is_member
from services.apiserver.schema.definitions import ANY, Node

Obj = dict[str, Any]

_MISSING: Any = object()
_KEY_DEFAULTS = {"protocol": "TCP"}
"""Keys of map-lists that have a default: an item that leaves one out is still that item."""

# Fields that in Go are structs, not pointers (or lists that are always written): they exist in every object, so nobody
# is recorded as having added them.
_ALWAYS_THERE = frozenset(
    {
        "metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "containers",
        "resources",
        "roleRef", "involvedObject", "regarding", "source", "scaleTargetRef", "loadBalancer", "nodeInfo", "names",
        "daemonEndpoints", "kubeletEndpoint", "acceptedNames", "podSelector",
    }
)  # fmt: skip


def _shape(node: Node, value: Any) -> str:
    """How a value is walked: fields, keyed, values, or leaf."""
    if isinstance(value, dict):
        if not node.granular or (node.type == "open" and node.definition):
            return "leaf"
        return "fields"
    if isinstance(value, list):
        if node.list_type == "map" and node.list_keys:
            return "keyed"
        return "values" if node.list_type == "set" else "leaf"
    return "leaf"


def is_atomic(node: Node, value: Any) -> bool:
    """Whether a list or mapping can only be replaced whole."""
    return _shape(node, value) == "leaf"


def child(node: Node, name: str) -> Node:
    """The node of a field."""
    return _child(node, name)


def _child(node: Node, name: str) -> Node:
    if node.type == "object":
        return node.fields.get(name, ANY)
    return node.item if node.type == "map" else ANY


def _element(node: Node, item: Any) -> str | None:
    """The path element of a map-list's item; None if a key is missing."""
    if not isinstance(item, dict):
        return None
    keys: dict[str, Any] = {}
    for name in sorted(node.list_keys):
        value = item.get(name)
        if value is None:
            value = _KEY_DEFAULTS.get(name)
            if value is None:
                # An absent key that may be absent is the empty string to Go.
                if name in node.item.required:
                    return None
                continue
        keys[name] = value
    if not keys or not all(isinstance(value, str | int) for value in keys.values()):
        return None
    # Types are part of the key: 1 and true, which are equal, are not the same item.
    if any(isinstance(value, bool) for value in keys.values()):
        return "k:" + orjson.dumps(keys).decode()
    return _key_text(tuple(keys), tuple(keys.values()))


@functools.lru_cache(maxsize=16384)
def _key_text(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return "k:" + orjson.dumps(dict(zip(names, values, strict=True))).decode()


def _keyed(node: Node, items: list[Any]) -> dict[str, Any] | None:
    """A list's items by path element, in order; None if it can't be keyed (a key missing, or twice the same)."""
    out: dict[str, Any] = {}
    if node.list_type == "set":
        for item in items:
            out["v:" + orjson.dumps(item).decode()] = item
        return out if len(out) == len(items) else None
    keys = node.list_keys
    if len(keys) == 1:
        # The usual case, without the way through a dict for each item.
        name = keys[0]
        for item in items:
            value = item.get(name) if isinstance(item, dict) else None
            if type(value) is str:
                out[_key_text(keys, (value,))] = item
            elif (element := _element(node, item)) is not None:
                out[element] = item
        return out if len(out) == len(items) else None
    for item in items:
        found = _element(node, item)
        if found is None or found in out:
            return None
        out[found] = item
    return out


def field_set(node: Node, obj: Obj) -> FieldSet:
    """The fields that an applied configuration names. BadRequest if a list can't be keyed."""
    out: FieldSet = {}
    _fields_of(node, obj, out, "")
    return out


def _fields_of(node: Node, obj: Obj, out: FieldSet, path: str) -> None:
    for name, value in obj.items():
        child = _child(node, name)
        below = _set_of(child, value, f"{path}.{name}")
        if below is not None:
            declared = node.type == "object" and name in node.fields
            if below and not declared:
                below = {SELF: {}, **below}
            out["f:" + name] = below


def _set_of(node: Node, value: Any, path: str) -> FieldSet | None:
    """The set at and under one value; None for an empty list that merges, which names nothing."""
    match _shape(node, value):
        case "fields":
            below: FieldSet = {}
            _fields_of(node, value, below, path)
            return below
        case "keyed" | "values":
            items = _keyed(node, value)
            if items is None:
                raise BadRequest(f"{path}: duplicate entries or missing keys in a list that merges by {_by(node)}")
            if not items:
                return None
            out: FieldSet = {}
            for element, item in items.items():
                inner = _set_of(node.item, item, f"{path}[{element[2:]}]")
                out[element] = {SELF: {}, **inner} if inner else {}
            return out
        case _:
            return {}


def undeclared(node: Node, obj: Obj) -> list[tuple[str, ...]]:
    """Paths of the fields that a configuration names and the schema does not have."""
    found: list[tuple[str, ...]] = []
    _undeclared(node, obj, (), found)
    return found


def _undeclared(node: Node, value: Any, path: tuple[str, ...], found: list[tuple[str, ...]]) -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            here = (*path, f"f:{name}")
            if node.type == "object" and name not in node.fields and not node.open_fields:
                found.append(here)
            else:
                _undeclared(_child(node, name), below, here, found)
    elif isinstance(value, list):
        items = _keyed(node, value) if _shape(node, value) != "leaf" else None
        places = items.items() if items is not None else ((f"i:{index}", one) for index, one in enumerate(value))
        for element, item in places:
            _undeclared(node.item if node.type == "array" else ANY, item, (*path, element), found)


def _by(node: Node) -> str:
    return ", ".join(node.list_keys) if node.list_keys else "value"


def compare(node: Node, old: Obj, new: Obj, *, builtin: bool = True) -> tuple[FieldSet, FieldSet]:
    """(added or modified, removed): the fields in which two objects differ."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    _compare_fields(node, old, new, changed, removed, builtin)
    return changed, removed


def _compare_fields(node: Node, before: Obj, after: Obj, changed: FieldSet, removed: FieldSet, builtin: bool) -> None:
    """The fields of two objects that both exist."""
    for name, value in after.items():
        was = before.get(name, _MISSING)
        if was is value:
            continue
        if was is _MISSING:
            kind = type(value)
            if kind is not dict and kind is not list:
                changed["f:" + name] = {}
                continue
            if not builtin or name not in _ALWAYS_THERE:
                changed["f:" + name] = _whole(_child(node, name), value)
                continue
            was = [] if isinstance(value, list) else {}
        elif was == value and type(was) is type(value):
            continue
        _compare_value(_child(node, name), was, value, "f:" + name, changed, removed, builtin)
    for name, was in before.items():
        if name not in after:
            removed["f:" + name] = _whole(_child(node, name), was)


def _whole(node: Node, value: Any) -> FieldSet:
    """The set at and under a value that wholly came or went: everything in it, and the places themselves.

    Every created object goes through here field by field: types are compared, not tested, as decoded JSON allows.
    """
    kind = type(value)
    if kind is dict:
        sort = node.type
        if not value or not node.granular or (sort == "open" and node.definition):
            return {}
        out: FieldSet = {SELF: {}}
        if sort == "object":
            fields = node.fields
            for name, below in value.items():
                kind = type(below)
                branch = kind is dict or kind is list
                out["f:" + name] = _whole(fields.get(name, ANY), below) if branch and below else {}
        else:
            child = node.item if sort == "map" else ANY
            for name, below in value.items():
                kind = type(below)
                out["f:" + name] = _whole(child, below) if kind is dict or kind is list else {}
        return out
    if kind is list and value and (node.list_type == "map" or node.list_type == "set"):
        items = _keyed(node, value)
        if items is None:
            return {}
        item_node = node.item
        out = {SELF: {}}
        for element, item in items.items():
            out[element] = _whole(item_node, item)
        return out
    return {}


def _compare_value(
    node: Node, old: Any, new: Any, element: str, changed: FieldSet, removed: FieldSet, builtin: bool
) -> None:
    """Two values that both exist and differ (or that one finds to be equal only here)."""
    shape = _shape(node, new) if type(old) is type(new) else "leaf"
    if shape != "leaf" and (old or new):
        more: FieldSet = {}
        less: FieldSet = {}
        if shape == "fields":
            _compare_fields(node, old, new, more, less, builtin)
            walked = True
        else:
            walked = _compare_items(node, old, new, more, less, builtin)
        if walked:
            if more:
                changed[element] = more
            if less:
                removed[element] = less
            return
    if old != new or type(old) is not type(new):
        changed[element] = {}


def _compare_items(
    node: Node, old: list[Any], new: list[Any], changed: FieldSet, removed: FieldSet, builtin: bool
) -> bool:
    """Items of two lists that merge, by path element; False if one can't be keyed."""
    before, after = _keyed(node, old), _keyed(node, new)
    if before is None or after is None:
        return False
    for element, item in after.items():
        was = before.get(element, _MISSING)
        if was is _MISSING:
            changed[element] = _whole(node.item, item)
        elif was is not item and was != item:
            _compare_value(node.item, was, item, element, changed, removed, builtin)
    for element, was in before.items():
        if element not in after:
            removed[element] = _whole(node.item, was)
    return True


def merge(node: Node, live: Obj, config: Obj) -> Obj:
    """The live object with an applied configuration merged over it. Neither is changed; unchanged parts are shared."""
    out = dict(live)
    for name, value in config.items():
        current = out.get(name, _MISSING)
        out[name] = value if current is _MISSING else _merge_value(_child(node, name), current, value)
    return out


def _merge_value(node: Node, live: Any, config: Any) -> Any:
    if type(live) is not type(config):
        return config
    match _shape(node, config):
        case "fields":
            return merge(node, live, config)
        case "keyed" | "values":
            ours, theirs = _keyed(node, live), _keyed(node, config)
            return config if ours is None or theirs is None else _merge_items(node, ours, theirs)
        case _:
            return config


def _merge_items(node: Node, ours: dict[str, Any], theirs: dict[str, Any]) -> list[Any]:
    """The configuration's order rules; what only the live list has keeps its place before what it stood before."""
    out: list[Any] = []
    pending = dict.fromkeys(ours)
    for element, item in theirs.items():
        for head in list(pending):
            if head in theirs:
                break
            del pending[head]
            out.append(ours[head])
        if element in pending:
            del pending[element]
            out.append(_merge_value(node.item, ours[element], item))
        else:
            out.append(item)
    out += [ours[element] for element in pending]
    return out


def remove(node: Node, obj: Obj, gone: FieldSet, kept: FieldSet) -> Obj:
    """The object without the members of `gone` and everything under them.

    Objects and lists that this empties go too, unless they belong to `kept`: somebody wants them empty.
    """
    out = dict(obj)
    for element, below in gone.items():
        name = element[2:]
        if element == SELF or name not in out:
            continue
        if SELF in below or not below:
            del out[name]
            continue
        held = kept.get(element)
        rest = _remove_below(_child(node, name), out[name], below, held or {})
        if rest or (held is not None and is_member(held)):
            out[name] = rest
        else:
            del out[name]
    return out


def _remove_below(node: Node, value: Any, gone: FieldSet, kept: FieldSet) -> Any:
    if isinstance(value, dict):
        return remove(node, value, gone, kept)
    if isinstance(value, list) and _shape(node, value) in ("keyed", "values"):
        items = _keyed(node, value)
        if items is None:
            return value
        out: list[Any] = []
        for element, item in items.items():
            below = gone.get(element)
            if below is None:
                out.append(item)
            elif below and SELF not in below:
                out.append(_remove_below(node.item, item, below, kept.get(element) or {}))
        return out
    return value
