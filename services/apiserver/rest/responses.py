"""Answers: bytes with the right head. Lists and watch events are spliced from stored bytes, never decoded."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import yaml
from aiohttp import web

from machinery.api import errors
from services.apiserver.rest import protobuf
from services.apiserver.rest.negotiate import JSON, PROTOBUF, YAML

GZIP_BYTES_MIN = 128 * 1024
# The fastest level: compressing is for slow links, and it must not cost more than it saves on fast ones.
_GZIP_LEVEL = 1
_GZIP_WINDOW = 31


def json_bytes(document: Any) -> bytes:
    """A document that the apiserver made itself, as JSON."""
    return orjson.dumps(document)


WARNINGS_LENGTH_MAX = 4096
WARNING_LENGTH_MAX = 256
"""What warnings may hold together, and each of them where they are more; upstream's numbers."""


def json_response(
    body: bytes, status: int = 200, *, content_type: str = JSON, warnings: Iterable[str] = ()
) -> web.Response:
    """An answer of JSON bytes."""
    response = web.Response(body=body, status=status, headers={"Content-Type": content_type})
    response.headers["Cache-Control"] = "no-cache, private"
    for text in _fitting(list(warnings)):
        response.headers.add("Warning", warning_header(text))
    return response


def _fitting(warnings: list[str]) -> list[str]:
    """As many warnings as clients take in an answer's head; all of them, if they are not large together."""
    if sum(map(len, warnings)) <= WARNINGS_LENGTH_MAX:
        return warnings
    room, fitting = WARNINGS_LENGTH_MAX, []
    for text in warnings:
        text = text[:WARNING_LENGTH_MAX]
        room -= len(text)
        if room < 0:
            break
        fitting.append(text)
    return fitting


def text_response(text: str, status: int = 200) -> web.Response:
    """An answer for people: health checks."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=text.encode(), status=status, headers=headers)


def represented(body: bytes, media_type: str) -> bytes:
    """JSON bytes in the wanted media type. Raises NotAcceptable for kinds that protobuf has no message for."""
    if media_type == PROTOBUF:
        return protobuf.encode(orjson.loads(body))
    if media_type == YAML:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text: str = yaml.dump(orjson.loads(body), Dumper=dumper, sort_keys=True, allow_unicode=True)
        return text.encode()
    return body


def warning_header(text: str) -> str:
    """A Warning header (RFC 7234): printable, one line, quoted."""
    clean = "".join(char if char.isprintable() else " " for char in text)[:4096]
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def status_response(error: errors.ApiError) -> web.Response:
    """An error as its `Status`, with Retry-After where the client should wait."""
    response = json_response(json_bytes(error.to_status()), error.code)
    if error.retry_after_seconds:
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="kubernetes"'
    return response


def success_status(group: str, resource: str, name: str, uid: str = "") -> bytes:
    """The Status that says an object is gone."""
    details = {"name": name, "kind": resource}
    if group:
        details["group"] = group
    if uid:
        details["uid"] = uid
    return json_bytes({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})


def list_bytes(
    kind: str, api_version: str, items: Sequence[bytes], revision: int, continue_token: str, remaining: int | None
) -> bytes:
    """A list around its items' bytes."""
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if continue_token:
        metadata["continue"] = continue_token
    if remaining is not None and continue_token:
        metadata["remainingItemCount"] = remaining
    head = f'{{"kind":"{kind}","apiVersion":"{api_version}","metadata":'.encode() + json_bytes(metadata)
    return b"".join((head, b',"items":[', b",".join(items), b"]}"))


def list_kind(kind: str) -> str:
    """The kind of a list of these."""
    return f"{kind}List"


async def compressed(response: web.Response, accept_encoding: str) -> web.Response:
    """The response with its body compressed, if it is large and the client takes gzip. The work is done off the
    loop.
    """
    body = response.body
    if not isinstance(body, bytes) or len(body) < GZIP_BYTES_MIN or "gzip" not in accept_encoding:
        return response
    packed = await asyncio.get_running_loop().run_in_executor(None, _gzip, body)
    response.body = packed
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    return response


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(body) + packer.flush()
