"""JSON patch, RFC 6902, with upstream's limits and error texts (its library is evanphx/json-patch)."""

from __future__ import annotations

import copy
from typing import Any

from machinery.api.errors import ApiError, BadRequest, Cause, Invalid, RequestTooLarge

OPERATIONS_MAX = 10_000
COPIED_BYTES_MAX = 3 * 1024 * 1024
"""What `copy` operations may add together: a short patch could otherwise double a document thirty times."""


class TestFailed(Invalid):
    """A `test` operation found another value."""

    __test__ = False  # it is none of pytest's


_NO_TARGET = "jsonpatch {op} operation does not apply: doc is missing {what}: {path}: missing value"


def apply(doc: Any, operations: Any) -> Any:
    """A new document: `doc` after all operations. Neither input is changed.

    BadRequest for what isn't a JSON patch, RequestTooLarge for too many operations, Invalid when an operation doesn't
    apply or a test fails, as upstream answers each.
    """
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise BadRequest("error decoding patch: a JSON patch is an array of operations")
    if len(operations) > OPERATIONS_MAX:
        raise RequestTooLarge(
            "Request entity too large: "
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    result = copy.deepcopy(doc)
    copied = 0
    for operation in operations:
        kind = operation.get("op")
        path = _tokens(operation.get("path"))
        match kind:
            case "add":
                result = _add(result, path, copy.deepcopy(_value(operation)), "add")
            case "remove":
                result, _ = _remove(result, path, "remove")
            case "replace":
                _find(result, path, "replace")
                result = _set(result, path, copy.deepcopy(_value(operation)))
            case "move":
                source = _tokens(operation.get("from"))
                if path[: len(source)] == source and len(path) > len(source):
                    raise _invalid("jsonpatch move operation does not apply: cannot move a value into itself")
                result, moved = _remove(result, source, "move")
                result = _add(result, path, moved, "move")
            case "copy":
                value = copy.deepcopy(_find(result, _tokens(operation.get("from")), "copy"))
                copied += len(repr(value))
                if copied > COPIED_BYTES_MAX:
                    raise _invalid(
                        f"Unable to copy: accumulated size of copied values exceeds {COPIED_BYTES_MAX} bytes"
                    )
                result = _add(result, path, value, "copy")
            case "test":
                _test(result, path, operation)
            case _:
                raise BadRequest(f"Unexpected kind: {kind}")
    return result


def _invalid(message: str, sort: type[Invalid] = Invalid) -> ApiError:
    # Upstream says no more than the first sentence; kubectl shows the cause in its place.
    cause = Cause("UnexpectedServerResponse", message)
    return sort("the server rejected our request due to an error in our request", causes=[cause])


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise BadRequest(f'JSON patch operation "{operation.get("op")}" has no value')
    return operation["value"]


def _tokens(pointer: Any) -> list[str]:
    if not isinstance(pointer, str):
        raise BadRequest("a JSON patch operation needs a path")
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise BadRequest(f'"{pointer}" is not a JSON pointer: it must start with "/"')
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def _pointer(tokens: list[str]) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def _missing(op: str, tokens: list[str], what: str = "key") -> ApiError:
    return _invalid(_NO_TARGET.format(op=op, what=what, path=_pointer(tokens)))


def _index(container: list[Any], token: str, op: str, path: list[str], *, past_end: bool) -> int:
    if past_end and token == "-":  # noqa: S105 (a token of a JSON pointer)
        return len(container)
    digits = token[1:] if token.startswith("-") else token
    if not (digits.isascii() and digits.isdigit()) or (len(digits) > 1 and digits[0] == "0"):
        raise _invalid(f"jsonpatch {op} operation does not apply: {_pointer(path)}: invalid index {token!r}")
    index = int(token)
    if index < 0 or index >= len(container) + past_end:
        raise _invalid(
            f"jsonpatch {op} operation does not apply: Unable to access invalid index: {index}: invalid index"
        )
    return index


def _child(container: Any, token: str, op: str, path: list[str]) -> Any:
    if isinstance(container, dict):
        if token not in container:
            raise _missing(op, path)
        return container[token]
    if isinstance(container, list):
        return container[_index(container, token, op, path, past_end=False)]
    raise _missing(op, path, "path")


def _find(doc: Any, path: list[str], op: str) -> Any:
    for token in path:
        doc = _child(doc, token, op, path)
    return doc


def _add(doc: Any, path: list[str], value: Any, op: str) -> Any:
    if not path:
        return value
    container = _find(doc, path[:-1], op)
    if isinstance(container, dict):
        container[path[-1]] = value
    elif isinstance(container, list):
        container.insert(_index(container, path[-1], op, path, past_end=True), value)
    else:
        raise _missing(op, path, "path")
    return doc


def _set(doc: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    container = _find(doc, path[:-1], "replace")
    if isinstance(container, dict):
        container[path[-1]] = value
    else:
        container[_index(container, path[-1], "replace", path, past_end=False)] = value
    return doc


def _remove(doc: Any, path: list[str], op: str) -> tuple[Any, Any]:
    if not path:
        return None, doc
    container = _find(doc, path[:-1], op)
    removed = _child(container, path[-1], op, path)
    if isinstance(container, dict):
        del container[path[-1]]
    else:
        del container[_index(container, path[-1], op, path, past_end=False)]
    return doc, removed


def _test(doc: Any, path: list[str], operation: dict[str, Any]) -> None:
    """A value that isn't there equals null, as in upstream's library."""
    expected = operation.get("value")
    try:
        actual = _find(doc, path, "test")
    except Invalid:
        if expected is None:
            return
        raise
    if not equal(actual, expected):
        raise _invalid(f"testing value {_pointer(path)} failed: test failed", TestFailed)


def equal(left: Any, right: Any) -> bool:
    """JSON equality: numbers by value, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)
