"""Requests take their turn: priority and fairness (`services/apiserver/flow`) in front of the answers.

Watches take a seat only while they begin; streams into pods and proxies take none: they last, and their number is
bounded by connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from services.apiserver.flow.control import FlowControl
from services.apiserver.rest.context import Call
from services.apiserver.rest.paths import RequestInfo

OBJECTS_PER_SEAT = 100
WIDTH_MAX = 10
"""A list takes a seat for every hundred objects that it may have to look at, ten at most; as upstream estimates."""

_STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})

CountObjects = Callable[[str, str, str, str], int]
"""(group, version, resource, namespace) -> how many objects a list of them looks at."""


class Turns:
    """Answers calls when it is their turn."""

    def __init__(self, control: FlowControl, objects: CountObjects) -> None:
        self._control = control
        self._objects = objects

    async def run(self, call: Call, answer: Callable[[Call], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Answer the call when there are seats for it. Raises TooManyRequests."""
        info, user, control = call.info, call.user, self._control
        call.flow = flow = control.classify(
            user, info.verb, info.group, info.resource, info.subresource, info.namespace, info.path
        )
        level = flow.level
        if level.exempt or info.verb == "proxy" or info.subresource in _STREAMS:
            return await answer(call)
        width = level.clipped(self._width(call)) if info.verb == "list" else 1
        if not control.enter(flow, width):
            await control.wait(flow, user, info.namespace, width)
        if info.verb == "watch":
            control.leave(flow, width)
            return await answer(call)
        try:
            return await answer(call)
        finally:
            control.leave(flow, width)

    def _width(self, call: Call) -> int:
        info: RequestInfo = call.info
        count = self._objects(info.group, info.version, info.resource, info.namespace)
        if call.query:
            limit = call.query.get("limit", ("",))[0]
            if limit.isdigit() and int(limit):
                count = min(count, int(limit))
        return min(max(-(-count // OBJECTS_PER_SEAT), 1), WIDTH_MAX)
