"""The little of HTTP/1.1 that an upgrade needs: a bounded request head, and an answer."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import msgspec

HEAD_BYTES_MAX = 32 * 1024


class BadRequest(Exception):
    """Not a request that can be answered with more than its refusal."""


class Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, list[str]]
    """By lower-case name."""

    def header(self, name: str) -> str:
        return ",".join(self.headers.get(name, []))

    def tokens(self, name: str) -> list[str]:
        """A header that is a comma-separated list."""
        return [part.strip() for part in self.header(name).split(",") if part.strip()]


def parse_head(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("not an HTTP/1.1 request")
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if line and (not colon or name != name.strip()):
            raise BadRequest(f"header line {line[:60]!r}")
        if colon:
            headers.setdefault(name.lower(), []).append(value.strip())
    url = urlsplit(parts[1])
    return Request(parts[0], url.path, parse_qs(url.query), headers)


async def read_request(reader: asyncio.StreamReader) -> Request:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise BadRequest("the request's head is too long") from error
    return parse_head(head[:-4])


def answer(status: int, headers: Mapping[str, str] | None = None, body: str = "") -> bytes:
    fields = dict(headers or {})
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        fields |= {"Content-Length": str(len(body.encode())), "Content-Type": "text/plain", "Connection": "close"}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
