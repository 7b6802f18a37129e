"""Strategic merge patch: a merge patch that knows which lists are keyed (k8s.io/apimachinery/pkg/util/strategicpatch).

Directives: `$patch: replace|delete|merge` in objects and list items, `$retainKeys` beside the fields that stay,
`$deleteFromPrimitiveList/<field>` for lists of scalars, `$setElementOrder/<field>` for the order of merged lists.
Which lists merge, and by which key, is in the definitions (`x-kubernetes-patch-strategy`, `-merge-key`).
"""

from __future__ import annotations

import copy
from typing import Any

from machinery.api.errors import BadRequest
from services.apiserver.go_text import printed
from services.apiserver.schema.definitions import ANY, Node

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

Obj = dict[str, Any]


def apply(doc: Obj, patch: Any, node: Node) -> Obj:
    """`doc` of the kind that `node` describes with `patch` merged in. Neither input is changed.

    BadRequest for a directive that doesn't exist or that names an item without its merge key.
    """
    if not isinstance(patch, dict):
        raise BadRequest("a strategic merge patch is an object")
    return _merge_objects(doc, patch, node)


def _merge_objects(original: Obj, patch: Obj, node: Node) -> Obj:
    directive = patch.get(_DIRECTIVE)
    if directive is not None:
        if directive == "replace":
            return {name: _stripped(value) for name, value in patch.items() if name[:1] != "$" and value is not None}
        if directive == "delete":
            return {}
        if directive != "merge":
            raise BadRequest(f"Unknown patch type found: {directive}")
    result = dict(original)
    directives = [name for name in patch if name[:1] == "$"]
    if directives:
        _retain(result, patch)
    for name, value in patch.items():
        if directives and (name in (_DIRECTIVE, _RETAIN) or name.startswith(_ORDER)):
            continue
        if directives and name.startswith(_DELETE):
            _delete_from_primitives(result, name.removeprefix(_DELETE), value)
        elif value is None:
            result.pop(name, None)
        elif isinstance(value, dict | list):
            order = patch.get(_ORDER + name) if directives else None
            result[name] = _merge_field(result.get(name), value, _field(node, name), order)
        else:
            result[name] = value
    for name in directives:
        if name.startswith(_ORDER) and name.removeprefix(_ORDER) not in patch:
            _reorder_unpatched(result, name.removeprefix(_ORDER), patch[name], node)
    return result


def _field(node: Node, name: str) -> Node:
    if node.type == "object":
        return node.fields.get(name, ANY)
    return node.item if node.type == "map" else ANY


def _retain(result: Obj, patch: Obj) -> None:
    keep = patch.get(_RETAIN)
    if keep is None:
        return
    if not isinstance(keep, list):
        raise BadRequest("$retainKeys must be a list of field names")
    for name in patch:
        if not name.startswith("$") and name not in keep and patch[name] is not None:
            raise BadRequest(f"$retainKeys does not contain {name}, which the patch sets")
    for name in [name for name in result if name not in keep]:
        del result[name]


def _delete_from_primitives(result: Obj, name: str, gone: Any) -> None:
    if not isinstance(gone, list):
        raise BadRequest(f"{_DELETE}{name} must be a list")
    current = result.get(name)
    if isinstance(current, list):
        left_out = {_hashable(item) for item in gone}
        result[name] = [item for item in current if _hashable(item) not in left_out]


_GONE = object()
"""What is left where an item was deleted, until the others may move up."""


def _merge_field(original: Any, patch: Obj | list[Any], node: Node, order: Any) -> Any:
    if isinstance(patch, dict):
        return _merge_objects(original if isinstance(original, dict) else {}, patch, node)
    if "merge" in node.strategies:
        return _merge_lists(original if isinstance(original, list) else [], patch, node, order)
    return copy.deepcopy(patch)


def _merge_lists(original: list[Any], patch: list[Any], node: Node, order: Any) -> list[Any]:
    key = node.merge_key
    if not key:
        return _merge_primitives(original, patch, order)
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" and len(item) == 1 for item in patch):
        return [_stripped(item) for item in patch if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "replace")]
    result: list[Any] = list(original)
    # Where the items with a key are: a look at every item for each would let a large patch hold the server for minutes.
    places: dict[Any, list[int]] = {}
    for index, one in enumerate(result):
        if isinstance(one, dict):
            places.setdefault(_hashable(one.get(key)), []).append(index)
    for item in patch:
        if not isinstance(item, dict):
            raise BadRequest(f"expected an object in a list that merges by {key}, found {item!r}")
        directive = item.get(_DIRECTIVE)
        if directive not in (None, "merge", "delete", "replace"):
            raise BadRequest(f"Unknown patch type found: {directive}")
        if directive == "replace":
            # One item's replace directive replaces the whole list, as upstream does.
            return [_stripped({k: v for k, v in one.items() if k != _DIRECTIVE}) for one in patch]
        if key not in item:
            raise BadRequest(f"map: {printed(item)} does not contain declared merge key: {key}")
        value = _hashable(item[key])
        if directive == "delete":
            for index in places.pop(value, ()):
                result[index] = _GONE
        elif value in places:
            first = places[value][0]
            result[first] = _merge_objects(result[first], item, node.item)
        else:
            places[value] = [len(result)]
            result.append(_merge_objects({}, item, node.item))
    result = [one for one in result if one is not _GONE]
    # Without an order of its own the patch's items stand as the patch has them, new ones before what only the server
    # has.
    wanted = _keys(order, key) if order is not None else [item[key] for item in patch]
    return _ordered(result, original, wanted, key)


def _keys(order: Any, key: str) -> list[Any]:
    if not isinstance(order, list) or not all(isinstance(one, dict) and key in one for one in order):
        raise BadRequest(f"$setElementOrder must be a list of objects that each hold {key}")
    return [one[key] for one in order]


def _ordered(result: list[Any], original: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Items that `order` names stand in that order; the others keep their place relative to the server's order."""

    def ident(item: Any) -> Any:
        return _hashable(item.get(key) if key else item)

    rank: dict[Any, int] = {}
    for index, value in enumerate(order):
        rank.setdefault(_hashable(value), index)
    listed = [item for item in result if ident(item) in rank]
    listed.sort(key=lambda item: rank[ident(item)])
    others = [item for item in result if ident(item) not in rank]
    if not others:
        return listed
    place = {ident(item): index for index, item in enumerate(original)}
    merged: list[Any] = []
    left, right = 0, 0
    while left < len(listed) and right < len(others):
        here = place.get(ident(listed[left]))
        other = place.get(ident(others[right]))
        # An item that the server didn't have goes before what only the server has.
        if here is None or other is None or here < other:
            merged.append(listed[left])
            left += 1
        else:
            merged.append(others[right])
            right += 1
    return merged + listed[left:] + others[right:]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _merge_primitives(original: list[Any], patch: list[Any], order: Any) -> list[Any]:
    result = list(original)
    present = {_hashable(item) for item in result}
    for item in patch:
        if _hashable(item) not in present:
            present.add(_hashable(item))
            result.append(item)
    return _ordered(result, original, order if isinstance(order, list) else patch, None)


def _reorder_unpatched(result: Obj, name: str, order: Any, node: Node) -> None:
    """`$setElementOrder` of a list that the patch doesn't otherwise touch."""
    current = result.get(name)
    field = _field(node, name)
    if not isinstance(current, list) or "merge" not in field.strategies or not isinstance(order, list):
        return
    key = field.merge_key
    result[name] = _ordered(current, current, _keys(order, key) if key else order, key or None)


def _stripped(value: Any) -> Any:
    """A copy without directives and nulls: what a patch that meets nothing leaves behind."""
    if isinstance(value, dict):
        return {
            name: _stripped(below) for name, below in value.items() if not name.startswith("$") and below is not None
        }
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return value
