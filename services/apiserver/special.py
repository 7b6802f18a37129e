"""Writes that are not a create, update or patch of a stored object: posts to subresources, and resources that are never
stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from machinery.api import errors
from services.apiserver.request import Request, WriteOptions, WriteResult

if TYPE_CHECKING:
    from services.apiserver.deletion import Deleter
    from services.apiserver.writes import Writer

Post = Callable[["Parts", Request, dict[str, Any], WriteOptions], Awaitable[WriteResult]]


class Parts:
    """What special writes are made of."""

    writer: Writer
    deleter: Deleter

    def __init__(self, authenticator: Any, authorizer: Any, tokens: Any) -> None:
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.tokens = tokens


class Special:
    """Finds who handles a special write: by (resource, subresource), as the store would name the resource."""

    def __init__(self, parts: Parts, posts: dict[tuple[str, str], Post]) -> None:
        self._parts = parts
        self._posts = posts

    async def create(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        """Handle a post. Raises MethodNotAllowed where nobody does."""
        post = self._posts.get((req.resource.kind.resource, req.subresource))
        if post is None:
            raise errors.MethodNotAllowed("the server does not allow this method on the requested resource")
        return await post(self._parts, req, body, options)
