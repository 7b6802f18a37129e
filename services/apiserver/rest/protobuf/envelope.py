"""A body: the mark `k8s\\0`, then a message that says what the object is and holds it.

Unknown     {typeMeta = 1 {apiVersion = 1, kind = 2}, raw = 2, contentEncoding = 3, contentType = 4}
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from machinery.api import errors
from services.apiserver.rest.protobuf import table
from services.apiserver.rest.protobuf.decoding import FIELDS_MAX, Decoder
from services.apiserver.rest.protobuf.encoding import Unencodable, encode_message
from services.apiserver.rest.protobuf.wire import BYTES, Malformed, Spend, delimited, small_fields, tag

MAGIC = b"k8s\x00"


def decode(body: bytes) -> dict[str, Any]:
    """The object in a body, as the same object's JSON would have given it. Raises BadRequest.

    Fields that the table doesn't know (of a newer client) are left out.
    """
    if not body.startswith(MAGIC):
        raise errors.BadRequest(
            "provided data does not appear to be a protobuf message: it does not begin with Kubernetes' mark k8s\\0"
        )
    decoder = Decoder(body)
    try:
        api_version, kind, start, end = _open(body, decoder.spend)
        message = table.message_of(api_version, kind)
        if message is None:
            raise errors.BadRequest(f'no kind "{kind}" is registered for version "{api_version}" in protobuf')
        return {"apiVersion": api_version, "kind": kind, **decoder.decode(message, start, end)}
    except (Malformed, UnicodeDecodeError) as error:
        raise errors.BadRequest(f"the protobuf body can't be decoded: {error}") from error
    except (IndexError, struct.error) as error:
        raise errors.BadRequest("the protobuf body can't be decoded: it is cut off") from error
    except StopIteration as error:
        raise errors.BadRequest(f"the protobuf body can't be decoded: more than {FIELDS_MAX} fields") from error


def _open(body: bytes, spend: Spend) -> tuple[str, str, int, int]:
    """The envelope's apiVersion and kind, and where the object starts and ends."""
    meta: tuple[int, int] = (0, 0)
    raw: tuple[int, int] = (0, 0)
    content = {3: "", 4: ""}
    for number, value in small_fields(body, len(MAGIC), len(body), spend):
        if not isinstance(value, tuple):
            continue
        if number == 1:
            meta = value
        elif number == 2:
            raw = value
        elif number in content:
            content[number] = body[value[0] : value[1]].decode()
    if content[3] or content[4] not in ("", "application/vnd.kubernetes.protobuf"):
        raise Malformed(f"an object of encoding {content[3]!r} and type {content[4]!r} inside of the envelope")
    names = {1: "", 2: ""}
    for number, value in small_fields(body, *meta, spend):
        if number in names and isinstance(value, tuple):
            names[number] = body[value[0] : value[1]].decode()
    if not names[1] or not names[2]:
        raise Malformed("its envelope does not say apiVersion and kind")
    return names[1], names[2], *raw


def check_encodable(api_version: str, kind: str) -> None:
    """Raises NotAcceptable for a kind that has no protobuf form (custom resources)."""
    if table.message_of(api_version, kind) is None:
        raise errors.NotAcceptable(f"{api_version} {kind} has no protobuf form: application/json is served")


def encode(obj: Mapping[str, Any]) -> bytes:
    """An object, a list, a Status as a body.

    Raises NotAcceptable for a kind that has no protobuf form (custom resources); InternalError for a value that is not
    of its field's type, which the server should not have let in.
    """
    api_version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    check_encodable(api_version, kind)
    message = table.message_of(api_version, kind)
    assert message is not None
    try:
        raw = encode_message(message, obj)
    except (Unencodable, RecursionError) as error:
        raise errors.InternalError(f"{api_version} {kind} can't be encoded as protobuf: {error}") from error
    meta = tag(1, BYTES) + delimited(api_version.encode()) + tag(2, BYTES) + delimited(kind.encode())
    return MAGIC + tag(1, BYTES) + delimited(meta) + tag(2, BYTES) + delimited(raw)
