"""Patches as the fake apiserver applies them: JSON merge patch and JSON patch by their RFCs; strategic merge for the
lists below.

The real ones are the apiserver's; these are small because a fake has to be obvious, and they refuse what they would
get wrong.
"""

from __future__ import annotations

import copy
from typing import Any

from machinery.api.errors import BadRequest, Invalid

# Field names whose lists are merged by a key, wherever they occur in the kinds that components patch. Lists of other
# names are replaced, which is right for all atomic lists.
MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "env": "name", "volumes": "name",
    "volumeMounts": "mountPath", "conditions": "type", "ownerReferences": "uid", "imagePullSecrets": "name",
    "hostAliases": "ip", "addresses": "type", "podIPs": "ip", "secrets": "name", "schedulingGates": "name",
    "reservedFor": "uid",
}  # fmt: skip
SET_LISTS = frozenset({"finalizers"})


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386. The result shares nothing with `patch`."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def strategic_patch(target: Any, patch: Any) -> Any:
    """Strategic merge of maps, and of the lists of MERGE_KEYS and SET_LISTS.

    Of the directives, `$patch: delete` and `replace`.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            if key.startswith(("$setElementOrder/", "$retainKeys")):
                continue
            raise BadRequest(f"the fake apiserver does not know the directive {key!r}")
        if value is None:
            out.pop(key, None)
        elif key in MERGE_KEYS and isinstance(value, list):
            out[key] = _merge_list(out.get(key) or [], value, MERGE_KEYS[key])
        elif key in SET_LISTS and isinstance(value, list):
            present = out.get(key) or []
            out[key] = [*present, *(item for item in value if item not in present)]
        else:
            out[key] = strategic_patch(out.get(key), value)
    return out


def _merge_list(present: list[Any], changes: list[Any], merge_key: str) -> list[Any]:
    out = list(present)
    for change in changes:
        at = next((i for i, item in enumerate(out) if item.get(merge_key) == change.get(merge_key)), None)
        if change.get("$patch") == "delete":
            if at is not None:
                del out[at]
        elif at is None:
            out.append(strategic_patch({}, change))
        else:
            out[at] = strategic_patch(out[at], change)
    return out


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. Raises Invalid where an operation does not apply."""
    if not isinstance(operations, list):
        raise BadRequest("a JSON patch is a list of operations")
    root = {"": copy.deepcopy(target)}
    for operation in operations:
        try:
            _apply(root, operation)
        except (KeyError, IndexError, ValueError, TypeError) as err:
            raise Invalid(
                f"the server rejected our request due to an error in our request: {operation}: {err!r}"
            ) from err
    return root[""]


def _apply(root: dict[str, Any], operation: dict[str, Any]) -> None:
    name, path = operation["op"], _pointer(operation["path"])
    if name == "test":
        if _get(root, path) != operation["value"]:
            raise ValueError("test failed")
    elif name == "add":
        _add(root, path, copy.deepcopy(operation["value"]))
    elif name == "remove":
        _remove(root, path)
    elif name == "replace":
        _get(root, path)
        _remove(root, path)
        _add(root, path, copy.deepcopy(operation["value"]))
    elif name == "copy":
        _add(root, path, copy.deepcopy(_get(root, _pointer(operation["from"]))))
    elif name == "move":
        _add(root, path, _remove(root, _pointer(operation["from"])))
    else:
        raise ValueError(f"unknown operation {name!r}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _get(node: Any, path: list[str]) -> Any:
    for part in path:
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def _add(root: Any, path: list[str], value: Any) -> None:
    parent, last = _get(root, path[:-1]), path[-1]
    if isinstance(parent, list):
        at = len(parent) if last == "-" else int(last)
        if not 0 <= at <= len(parent):
            raise IndexError(f"{last} is outside the list")
        parent.insert(at, value)
    else:
        parent[last] = value


def _remove(root: Any, path: list[str]) -> Any:
    parent, last = _get(root, path[:-1]), path[-1]
    return parent.pop(int(last) if isinstance(parent, list) else last)
