"""Calls over gRPC take their turn, as requests over REST do (`rest/flow.py`): the same levels and seats, so that who
floods one transport is in nobody's way on the other.

    async with self._turns(req): …

A batch is one call, of the flow of its first mutation, and takes a seat for every hundred mutations. Watches take a
seat only while they begin; sessions with pods take none.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from services.apiserver.flow.control import Flow, FlowControl
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Request, User

MUTATIONS_PER_SEAT = 100
OBJECTS_PER_SEAT = 100
WIDTH_MAX = 10
"""As a list over REST: a seat for every hundred objects, ten at most."""

CountObjects = Callable[[str, str, str, str], int]
"""(group, version, resource, namespace) -> how many objects a list of them looks at."""


class Turn:
    """Seats of one call, from entering the block to leaving it. Entering raises TooManyRequests."""

    __slots__ = ("_control", "_flow", "_namespace", "_user", "_width")

    def __init__(self, control: FlowControl, flow: Flow, user: User, namespace: str, width: int) -> None:
        self._control = control
        self._flow = flow
        self._user = user
        self._namespace = namespace
        # None are taken in a level without limits.
        self._width = 0 if flow.level.exempt else flow.level.clipped(width)

    async def __aenter__(self) -> None:
        if self._width and not self._control.enter(self._flow, self._width):
            await self._control.wait(self._flow, self._user, self._namespace, self._width)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            self._control.leave(self._flow, self._width)


class Turns:
    """Whose turn it is: called for each call that takes seats."""

    def __init__(self, control: FlowControl, objects: CountObjects) -> None:
        self._control = control
        self._objects = objects

    def __call__(self, req: Request) -> Turn:
        """The turn of a request."""
        resource = req.resource
        width = 1
        if req.verb in ("list", "deletecollection"):
            count = self._objects(resource.group, resource.version, resource.plural, req.namespace)
            width = _width(count, OBJECTS_PER_SEAT)
        return self._turn(req.user, req.verb, resource, req.subresource, req.namespace, width)

    def of(self, user: User, verb: str, resource: Resource, subresource: str, namespace: str, count: int = 1) -> Turn:
        """The turn of a call with so many mutations, the first of which is about this."""
        return self._turn(user, verb, resource, subresource, namespace, _width(count, MUTATIONS_PER_SEAT))

    def _turn(self, user: User, verb: str, resource: Resource, subresource: str, namespace: str, width: int) -> Turn:
        flow = self._control.classify(user, verb, resource.group, resource.plural, subresource, namespace, "")
        return Turn(self._control, flow, user, namespace, width)


def _width(count: int, a_seat: int) -> int:
    return min(max(-(-count // a_seat), 1), WIDTH_MAX)
