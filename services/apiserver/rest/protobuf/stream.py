"""A watch's events as frames of protobuf, for the rare client that takes nothing else.

A frame is its length in four bytes, the highest first, and a WatchEvent without the bodies' mark; the object inside
has it again.

WatchEvent  {type = 1, object = 2 {raw = 1}}
"""

from __future__ import annotations

import functools

import orjson

from services.apiserver.rest.protobuf.envelope import encode
from services.apiserver.rest.protobuf.wire import BYTES, delimited, tag

CONTENT_TYPE = "application/vnd.kubernetes.protobuf;stream=watch"


@functools.lru_cache(maxsize=256)
def _encoded(obj: bytes) -> bytes:
    # All who watch the same get the same bytes one after the other: they are encoded once.
    return encode(orjson.loads(obj))


def frame(event_type: str, obj: bytes) -> bytes:
    """An event of an object (its JSON). Raises NotAcceptable for a kind without a protobuf form."""
    content = tag(1, BYTES) + delimited(_encoded(obj))
    event = tag(1, BYTES) + delimited(event_type.encode()) + tag(2, BYTES) + delimited(content)
    return len(event).to_bytes(4, "big") + event
