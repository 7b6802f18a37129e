"""A small HTTPS client for what kubectl does not show: status codes, headers, raw watches."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp

from lab.pki import Identity
from tests.support.apiserver_process import ApiServerProcess


class Rest:
    """Requests as one identity. Answers are (status, decoded body)."""

    def __init__(self, server: ApiServerProcess, identity: Identity | None = None) -> None:
        identity = identity or server.admin
        self._context = ssl.create_default_context(cafile=str(identity.ca_file))
        self._context.load_cert_chain(identity.cert_file, identity.key_file)
        self._url = server.url

    async def __aenter__(self) -> Rest:
        connector = aiohttp.TCPConnector(ssl=self._context)
        self.session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: Any
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        async with self.session.request(
            method, self._url + path, data=data, params={k: str(v) for k, v in query.items()},
            headers={"Content-Type": content_type, "Accept": "application/json"},
        ) as response:  # fmt: skip
            raw = await response.read()
            return response.status, json.loads(raw) if raw else None

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        return await self.call("GET", path, **query)

    async def post(self, path: str, body: Any, **query: Any) -> tuple[int, Any]:
        return await self.call("POST", path, body, **query)

    async def put(self, path: str, body: Any, **query: Any) -> tuple[int, Any]:
        return await self.call("PUT", path, body, **query)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch+json", **query: Any) -> tuple[int, Any]:
        return await self.call("PATCH", path, body, f"application/{kind}", **query)

    async def delete(self, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        return await self.call("DELETE", path, body, **query)

    @asynccontextmanager
    async def watch(self, path: str, **query: Any) -> AsyncIterator[Watch]:
        params = {"watch": "1"} | {k: str(v) for k, v in query.items()}
        # A watch lives for as long as the server wants it to. With a bound of the client's, each read after it fails at
        # once, and whoever takes that for "nothing yet" asks again for ever.
        unbounded = aiohttp.ClientTimeout(total=None)
        async with self.session.get(self._url + path, params=params, timeout=unbounded) as response:
            yield Watch(response)


class Watch:
    """The events of one watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, seconds: float = 10) -> dict[str, Any] | None:
        """The next event; None at the end."""
        async with asyncio.timeout(seconds):
            line = await self.response.content.readline()
        return json.loads(line) if line else None

    async def take(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events; bookmarks count."""
        out = []
        for _ in range(count):
            event = await self.next()
            assert event is not None, "the watch ended"
            out.append((event["type"], event["object"]["metadata"].get("name", "")))
        return out
