"""Objects as bytes: the canonical form that is stored and served, and the point where its resourceVersion is spliced
in.

    {"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"    <- head, the same for every object of a kind
    42                                                                 <- the revision, known only in the store's
    transaction ","labels":{…},"name":"web","uid":"…"},"spec":{…}}                 <- tail, keys sorted

Equal tails mean equal objects. Nothing outside this module knows how the bytes are laid out.
"""

from __future__ import annotations

from typing import Any

import orjson

from machinery.api import errors
from services.apiserver.registry.resource import Resource

_TOP = frozenset(("apiVersion", "kind", "metadata"))
_SORTED = orjson.OPT_SORT_KEYS
_VERSION_AT = len(b'{"apiVersion":"')


def decode(value: bytes) -> dict[str, Any]:
    """Stored bytes as a dict that belongs to the caller."""
    obj: dict[str, Any] = orjson.loads(value)
    return obj


def encode_tail(obj: dict[str, Any]) -> bytes:
    """What follows the resourceVersion. `obj` is an object of the storage version; its own resourceVersion is
    ignored."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    rest = {key: value for key, value in obj.items() if key not in _TOP}
    try:
        # Only what was never a whole object (a key to remove) has no metadata besides its resourceVersion.
        own = b"," + orjson.dumps(metadata, option=_SORTED)[1:] if metadata else b"}"
        if not rest:
            return b'"' + own + b"}"
        return b'"' + own + b"," + orjson.dumps(rest, option=_SORTED)[1:]
    except TypeError as err:
        raise errors.BadRequest(f"the object can not be encoded as JSON: {err}") from err


_POINT = b'"metadata":{"resourceVersion":"'
# The apiVersion and kind before it are names of at most 253 + 63 + 63 characters.
_POINT_MAX = 512


def tail_of(value: bytes) -> bytes:
    """The tail of stored bytes, whatever version they are of."""
    start = value.index(_POINT, 0, _POINT_MAX) + len(_POINT)
    return value[value.index(b'"', start) :]


def splice(head: bytes, revision: int, tail: bytes) -> bytes:
    """Whole bytes from their parts."""
    return b"%b%d%b" % (head, revision, tail)


def with_revision(value: bytes, revision: int) -> bytes:
    """The same object at another revision."""
    start = value.index(_POINT, 0, _POINT_MAX) + len(_POINT)
    return b"%b%d%b" % (value[:start], revision, value[value.index(b'"', start) :])


def is_version(value: bytes, api_version: str) -> bool:
    """Whether stored bytes are of this apiVersion."""
    return value.startswith(b'{"apiVersion":"%b"' % api_version.encode())


def encode(obj: dict[str, Any]) -> bytes:
    """An object, with whatever version and resourceVersion it has, laid out as stored bytes are."""
    version = obj["metadata"].get("resourceVersion")
    head = f'{{"apiVersion":"{obj["apiVersion"]}","kind":"{obj["kind"]}","metadata":{{'
    tail = encode_tail(obj)
    if version:
        return b'%b"resourceVersion":"%b%b' % (head.encode(), str(version).encode(), tail)
    # Not committed: the answer to a dry run. The tail begins with the end of a resourceVersion.
    return head.encode() + tail[2 if tail.startswith(b'",') else 1 :]


def reversion(resource: Resource, value: bytes) -> bytes:
    """Stored bytes as the version that `resource` serves."""
    if resource.as_stored:
        return value
    if resource.conversion is None:
        # Versions of one schema: only the apiVersion differs, and it is the first thing in the bytes.
        return f'{{"apiVersion":"{resource.kind.api_version}"'.encode() + value[value.index(b'"', _VERSION_AT) + 1 :]
    obj = resource.conversion.to_served(decode(value))
    obj["apiVersion"], obj["kind"] = resource.kind.api_version, resource.kind.kind
    return encode(obj)
