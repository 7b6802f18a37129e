"""One request on its way: what was parsed of it, and who asks."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from services.apiserver.flow.control import Flow
from services.apiserver.request import User
from services.apiserver.rest.connection import Connection
from services.apiserver.rest.paths import Query, RequestInfo


@dataclass(slots=True)
class Call:
    """A request as the parts of the front hand it to each other."""

    http: web.BaseRequest
    info: RequestInfo
    query: Query
    user: User
    audit_id: str
    # Who the credentials proved, where that is not who is acted as.
    authenticated: User | None = None
    # When it came, where somebody wants to know.
    received: str = ""
    body: bytes = b""
    # Where it belongs in priority and fairness, once that is known.
    flow: Flow | None = None
    # What the answer warns of besides: that the resource is deprecated.
    deprecation: str = ""

    async def read(self) -> bytes:
        """The whole body."""
        body = self.connection.arrived(self.http.content)
        self.body = await self.http.read() if body is None else body
        return self.body

    @property
    def connection(self) -> Connection:
        """The connection that it came on."""
        return self.http.protocol  # type: ignore[return-value]

    @property
    def accept(self) -> str:
        """The Accept header."""
        return self.http.headers.get("Accept", "")

    @property
    def user_agent(self) -> str:
        """The User-Agent header."""
        return self.http.headers.get("User-Agent", "")

    @property
    def content_type(self) -> str:
        """The Content-Type header of the body."""
        return self.http.headers.get("Content-Type", "")
