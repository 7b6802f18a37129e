"""One GET for a probe or a hook, as upstream makes it: over HTTP or HTTPS without a look at certificates (a pod is
addressed by its IP), following redirects that stay on the host.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

_BODY_BYTES_MAX = 10 * 1024
_HEADERS_MAX = 200
_REDIRECTS_MAX = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class BadAnswer(Exception):
    """What answered does not speak HTTP, or leads round in circles; the message says which."""


class NotTls(BadAnswer):
    """A server of plain HTTP was asked over HTTPS."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The last answer: its code, and the body of a redirect that was not followed."""

    code: int
    body: str = ""


async def get(url: str, headers: Mapping[str, str]) -> HttpAnswer:
    """GET the URL. Header names are in lower case; `host` is kept for redirects within the same URL's server.

    Raises OSError, BadAnswer.
    """
    sent = dict(headers)
    for _ in range(_REDIRECTS_MAX + 1):
        code, answered, body = await _once(url, sent)
        target = answered.get("location", "")
        if code not in _REDIRECTS or not target:
            return HttpAnswer(code, body if 300 <= code < 400 else "")
        following = urljoin(url, target)
        if urlsplit(following).hostname != urlsplit(url).hostname:
            return HttpAnswer(code, body)
        if urlsplit(following).netloc != urlsplit(url).netloc:
            sent["host"] = urlsplit(following).netloc
        url = following
    raise BadAnswer(f"stopped after {_REDIRECTS_MAX} redirects")


async def _once(url: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], str]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=_insecure() if secure else None)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            raise NotTls("http: server gave HTTP response to HTTPS client") from error
        raise BadAnswer(f"tls: {error.reason}") from error
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items() if value)]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        words = (await reader.readline()).split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1][:3].isdigit():
            raise BadAnswer(f"malformed HTTP response {b' '.join(words)[:80]!r}")
        answered = await _headers(reader)
        code = int(words[1][:3])
        body = await _body(reader, answered) if 300 <= code < 400 else ""
        return code, answered, body
    except ValueError as error:  # a line longer than the reader takes
        raise BadAnswer(f"malformed HTTP response: {error}") from error
    finally:
        writer.close()


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(_HEADERS_MAX):
        line = (await reader.readline()).decode("latin-1").rstrip("\r\n")
        if not line:
            break
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    return found


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> str:
    """As much of the body as is shown to people; chunks are left as they came."""
    length = headers.get("content-length", "")
    wanted = min(int(length), _BODY_BYTES_MAX) if length.isdigit() else _BODY_BYTES_MAX
    body = b""
    while len(body) < wanted and (more := await reader.read(wanted - len(body))):
        body += more
    return body.decode("utf-8", "replace")


def _insecure() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
